use proptest::prelude::*;

use super::shell::{Guest, Ran, SHELLS};
use crate::scripts::{Commands, ScriptOptions, SectionPrefix, quote, user_script};

const GREEN: &str = "\x1b[32;1m";
const RESET: &str = "\x1b[0;m";

fn script(guest: &Guest, commands: &[&str], options: ScriptOptions) -> String {
    let commands: Vec<String> = commands.iter().map(|command| (*command).to_owned()).collect();
    let group = Commands { prefix: SectionPrefix::Script, commands: &commands };
    user_script(guest.path().to_str().expect("text"), &[group], options)
}

/// Runs the commands with every shell and gives what all of them agree on.
fn run(commands: &[&str]) -> Ran {
    run_with(commands, ScriptOptions::default())
}

fn run_with(commands: &[&str], options: ScriptOptions) -> Ran {
    let mut first: Option<Ran> = None;
    for shell in SHELLS {
        let guest = Guest::new();
        let ran = guest.run(shell, &script(&guest, commands, options));
        let first = first.get_or_insert_with(|| Ran {
            stdout: ran.stdout.clone(),
            stderr: ran.stderr.clone(),
            ..ran
        });
        assert_eq!((ran.code, &ran.stdout), (first.code, &first.stdout), "{shell:?}: {}", ran.stderr);
    }
    first.expect("there are shells")
}

/// The output without the lines that show commands.
fn output(ran: &Ran) -> String {
    ran.stdout.split_inclusive('\n').filter(|line| !line.starts_with(GREEN)).collect()
}

#[test]
fn commands_are_shown_and_share_one_shell() {
    let ran = run(&["cd /", "pwd", "X='a b'", "f() { echo \"<$X>\"; }", "f", "", "  echo indented\n"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    insta::assert_snapshot!(ran.stdout.replace('\x1b', "^["), @r#"
    ^[[32;1m$ cd /^[[0;m
    ^[[32;1m$ pwd^[[0;m
    /
    ^[[32;1m$ X='a b'^[[0;m
    ^[[32;1m$ f() { echo "<$X>"; }^[[0;m
    ^[[32;1m$ f^[[0;m
    <a b>

    ^[[32;1m$ echo indented^[[0;m
    indented
    "#);
}

#[test]
fn a_multi_line_command_is_shown_by_its_first_line() {
    let ran = run(&["for i in 1 2; do\n  echo $i\ndone\n"]);
    assert_eq!(
        ran.stdout,
        format!("{GREEN}$ for i in 1 2; do # collapsed multi-line command{RESET}\n1\n2\n")
    );
}

#[test]
fn scripts_start_in_the_project_directory() {
    for shell in SHELLS {
        let guest = Guest::new();
        let ran = guest.run(shell, &script(&guest, &["pwd"], ScriptOptions::default()));
        assert_eq!(output(&ran).trim_end(), guest.path().to_str().expect("text"));
    }
}

#[test]
fn the_first_failure_ends_the_script_with_its_exit_code() {
    for (commands, code) in [
        (&["exit 3", "echo not reached"][..], 3),
        (&["false", "echo not reached"], 1),
        (&["(exit 42)", "echo not reached"], 42),
        (&["sh -c 'exit 137'", "echo not reached"], 137),
        (&["true", "definitely-not-a-command 2>/dev/null", "echo not reached"], 127),
        (&["f() { return 7; }", "f", "echo not reached"], 7),
    ] {
        let ran = run(commands);
        assert_eq!((ran.code, output(&ran).as_str()), (code, ""), "{commands:?}");
    }
}

#[test]
fn a_failing_pipe_fails_where_the_shell_can_tell() {
    for shell in [SHELLS[0], SHELLS[2]] {
        let guest = Guest::new();
        let ran =
            guest.run(shell, &script(&guest, &["false | cat", "echo not reached"], ScriptOptions::default()));
        assert_eq!((ran.code, output(&ran).as_str()), (1, ""), "{shell:?}");
    }
}

#[test]
fn failures_that_the_script_handles_do_not_end_it() {
    let ran = run(&[
        "false || echo handled",
        "if false; then :; fi",
        "! true",
        "set +e",
        "false",
        "echo on",
        "false",
    ]);
    assert_eq!((ran.code, output(&ran).as_str()), (0, "handled\non\n"), "{}", ran.stderr);
}

#[test]
fn the_exit_code_check_ends_what_errexit_lets_pass() {
    let options = ScriptOptions { exit_code_check: true, ..ScriptOptions::default() };
    let ran = run_with(&["set +e", "echo first", "(exit 9)", "echo not reached"], options);
    assert_eq!((ran.code, output(&ran).as_str()), (9, "first\n"));
}

#[test]
fn here_documents_quotes_and_unicode_pass() {
    let ran = run(&[
        "cat <<'EOF'\n$HOME `x` \\ \"'\nEOF",
        "cat <<EOF\n$((1 + 1))\nEOF\n",
        "printf '%s\\n' 'it'\"'\"'s ünïcödé → 🦀' \"tab\there\"",
        "echo \"a\\\nb\" # a comment",
        "echo continued \\",
        "echo on its own",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        output(&ran),
        "$HOME `x` \\ \"'\n2\nit's ünïcödé → 🦀\ntab\there\nab\ncontinued\non its own\n"
    );
}

#[test]
fn a_construct_may_span_commands() {
    let ran = run(&["if true; then", "echo inside", "fi"]);
    assert_eq!((ran.code, output(&ran).as_str()), (0, "inside\n"), "{}", ran.stderr);
}

#[test]
fn a_nul_byte_cannot_break_a_script() {
    let ran = run(&["echo a\0b"]);
    assert_eq!(ran.stdout, format!("{GREEN}$ echo ab{RESET}\nab\n"));
}

#[test]
fn a_syntax_error_fails_the_script() {
    for shell in SHELLS {
        let guest = Guest::new();
        let ran = guest.run(shell, &script(&guest, &["echo 'never closed"], ScriptOptions::default()));
        assert_ne!(ran.code, 0, "{shell:?}");
    }
}

#[test]
fn standard_input_is_empty_and_files_may_be_overwritten() {
    let ran = run(&["cat", "echo 1 > f; echo 2 > f; cat f"]);
    assert_eq!((ran.code, output(&ran).as_str()), (0, "2\n"));
}

#[test]
fn a_terminated_script_exits_with_1() {
    let ran = run(&["kill -TERM $$", "echo not reached"]);
    assert_eq!((ran.code, output(&ran).as_str()), (1, ""));
}

#[test]
fn multi_line_commands_can_be_sections() {
    let options = ScriptOptions { sections: true, ..ScriptOptions::default() };
    for shell in SHELLS {
        let guest = Guest::new();
        let ran = guest.run(shell, &script(&guest, &["true", "echo '%s \\n'\necho two"], options));
        let mut lines = ran.stdout.lines();
        assert_eq!(lines.next(), Some("\x1b[32;1m$ true\x1b[0;m"));
        let start = lines.next().expect("a start");
        let (time, rest) =
            start.strip_prefix("section_start:").and_then(|s| s.split_once(':')).expect("a marker");
        assert!(time.parse::<u64>().is_ok_and(|time| time > 1_700_000_000), "{shell:?}: {start}");
        assert_eq!(
            rest,
            "section_script_step_1[hide_duration=true,collapsed=true]\r\x1b[0K\x1b[32;1m$ echo '%s \\n'",
        );
        assert_eq!(lines.next(), Some("echo two\x1b[0;m"));
        lines.next().expect("the output of echo");
        let end = lines.by_ref().last().expect("an end");
        assert!(end.starts_with("section_end:") && end.ends_with(":section_script_step_1\r\x1b[0K"), "{end}");
    }
}

#[test]
fn tracing_shows_the_commands() {
    let options = ScriptOptions { debug_trace: true, ..ScriptOptions::default() };
    let ran = run_with(&["echo traced"], options);
    assert!(ran.stderr.contains("+ echo traced"), "{}", ran.stderr);
}

#[test]
fn gitlab_env_carries_variables_between_stages() {
    for shell in SHELLS {
        let guest = Guest::new();
        guest.write(
            "gitlab_runner_env",
            "PLAIN=one\nQUOTED=a 'b' \"c\" $PATH `d` \\ e=f\nUID=1\nnot a variable\n1BAD=x\nBAD-NAME=x\n=x\n\nLAST=two",
        );
        let show = "printf '%s|' \"$PLAIN\" \"$QUOTED\" \"$LAST\"; env | grep -c BAD || :";
        let ran = guest.run(shell, &script(&guest, &[show], ScriptOptions::default()));
        assert_eq!(ran.code, 0, "{shell:?}: {}", ran.stderr);
        assert_eq!(output(&ran), "one|a 'b' \"c\" $PATH `d` \\ e=f|two|0\n", "{shell:?}");
        assert_eq!(ran.stderr, "", "{shell:?}");
    }
}

#[test]
fn the_runner_scripts_share_the_shell_of_the_step() {
    let (before, lines, after) =
        (["V=1; false || :".to_owned()], ["V=$V-2".to_owned()], ["echo $V-3".to_owned()]);
    let groups = [
        Commands { prefix: SectionPrefix::PreBuild, commands: &before },
        Commands { prefix: SectionPrefix::Script, commands: &lines },
        Commands { prefix: SectionPrefix::PostBuild, commands: &after },
    ];
    for shell in SHELLS {
        let ran = Guest::new().run(shell, &user_script("/", &groups, ScriptOptions::default()));
        assert_eq!(output(&ran), "1-2-3\n");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_text_comes_out_of_a_quoted_echo_as_it_was(text in "[^\0]{0,40}|['\"\\\\$`!*~ \n\t#&;|<>(){}\x1b%=-]{0,12}") {
        for shell in SHELLS {
            let guest = Guest::new();
            let command = format!("printf '%s' {} > out", quote(&text));
            let ran = guest.run(shell, &script(&guest, &[&command], ScriptOptions::default()));
            prop_assert_eq!(ran.code, 0, "{:?}: {}", shell, ran.stderr);
            prop_assert_eq!(guest.read("out"), &*text);
        }
    }

    #[test]
    fn any_command_is_shown_as_it_is_written(text in "[^\0\n]{0,30}") {
        let text = format!("# {text}");
        for shell in SHELLS {
            let guest = Guest::new();
            let ran = guest.run(shell, &script(&guest, &[&text], ScriptOptions::default()));
            prop_assert_eq!(&ran.stdout, &format!("{GREEN}$ {}{RESET}\n", text.trim()));
        }
    }
}
