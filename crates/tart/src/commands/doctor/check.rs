//! A finding, as it is shown.

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    state: State,
    what: &'static str,
    text: String,
    why: Option<String>,
    fix: Option<String>,
}

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// All is well.
    Ok,
    /// Jobs run, but not as they could.
    Warn,
    /// No job runs.
    Fail,
    /// It cannot be looked at before something else is well.
    Wait,
}

impl Check {
    fn new(state: State, what: &'static str, text: impl Into<String>) -> Self {
        Self { state, what, text: text.into(), why: None, fix: None }
    }

    pub(super) fn ok(what: &'static str, text: impl Into<String>) -> Self {
        Self::new(State::Ok, what, text)
    }

    pub(super) fn warn(what: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..Self::new(State::Warn, what, text) }
    }

    pub(super) fn fail(what: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..Self::new(State::Fail, what, text) }
    }

    /// It depends on the check called `first`.
    pub(super) fn wait(what: &'static str, first: &str) -> Self {
        Self::new(State::Wait, what, format!("not looked at yet: first comes `{first}`"))
    }

    /// The same, with the reason why it matters.
    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    pub(super) fn what(&self) -> &'static str {
        self.what
    }

    pub(super) fn is_ok(&self) -> bool {
        self.state == State::Ok
    }

    pub(super) fn failed(&self) -> bool {
        self.state == State::Fail
    }

    /// One line, and more with why it matters and what to do.
    pub(super) fn render(&self) -> String {
        let state = match self.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
            State::Wait => "wait",
        };
        let mut text = format!("{state:<4}  {:<9}  {}\n", self.what, self.text);
        for (name, more) in [("why", &self.why), ("fix", &self.fix)] {
            if let Some(more) = more {
                text.push_str(&format!("{:17}{name}: {more}\n", ""));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_with_what_to_do() {
        insta::assert_snapshot!(Check::ok("git", "git version 2").render(), @"ok    git        git version 2");
        insta::assert_snapshot!(Check::fail("qemu", "missing", "apt-get install x").because("it runs guests").render(), @r"
        fail  qemu       missing
                         why: it runs guests
                         fix: apt-get install x
        ");
        insta::assert_snapshot!(Check::wait("kvm", "cpu").render(), @"wait  kvm        not looked at yet: first comes `cpu`");
    }
}
