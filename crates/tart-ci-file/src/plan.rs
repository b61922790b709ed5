//! Which jobs a pipeline has for an event, and in what order they run.

use indexmap::IndexMap;

use crate::{
    conditions::{Conditions, WorkTree},
    context::ExecContext,
    error::{Error, Result, nearest},
    job::{AllowFailure, Job, When},
    pipeline::Pipeline,
    rules::{self, Rule},
    schedule::Task,
    variables::Variable,
    workflow::Outcome,
};

/// A pipeline as it would be made for an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Its name, if `workflow` gives it one.
    pub name: Option<String>,
    /// Why there is no pipeline, if there is none. The jobs are those that there would be.
    pub refused: Option<String>,
    /// Its jobs, by stages and in the order of the file.
    pub jobs: Vec<PlannedJob>,
    /// Jobs of the file that are not in the pipeline, and why.
    pub left_out: Vec<(String, String)>,
    /// What is doubtful.
    pub notes: Vec<String>,
}

/// A job of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedJob {
    /// The job with what its rules say.
    pub job: Job,
    /// Why it is in the pipeline.
    pub reason: String,
    /// The place of its stage.
    pub stage: usize,
    /// The jobs that it waits for, by their place in [`Plan::jobs`]; `None` means all of earlier stages.
    pub needs: Option<Vec<usize>>,
    /// The jobs whose artifacts it fetches.
    pub artifacts_of: Vec<usize>,
}

impl Plan {
    /// The jobs for [`crate::Schedule`]. `wanted` says of manual jobs whether somebody asks for them.
    #[must_use]
    pub fn tasks(&self, wanted: impl Fn(&Job) -> bool) -> Vec<Task> {
        let task = |planned: &PlannedJob| Task {
            stage: planned.stage,
            needs: planned.needs.clone(),
            when: planned.job.when,
            allow_failure: planned.job.allow_failure.clone(),
            retry: planned.job.retry.clone(),
            resource_group: planned.job.resource_group.clone(),
            wanted: wanted(&planned.job),
        };
        self.jobs.iter().map(task).collect()
    }
}

/// A job that is to run alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The job with what its rules say.
    pub job: Job,
    /// Why it is not in the pipeline, if it is not.
    pub left_out: Option<String>,
    /// The jobs of the pipeline whose artifacts it fetches.
    pub artifacts_of: Vec<Job>,
}

/// Whether a job is in the pipeline, and why or why not.
type Verdict = std::result::Result<String, String>;

impl Pipeline {
    /// The pipeline that GitLab would make.
    ///
    /// # Errors
    ///
    /// A job needs one that is not there, or files cannot be compared with what a rule names.
    pub fn plan(&self, context: &ExecContext, tree: &dyn WorkTree) -> Result<Plan> {
        let conditions = Conditions::of_pipeline(context, tree, self.variables.iter());
        let (mut refused, rule) = match self.workflow.decide(&conditions)? {
            Outcome::Runs(rule) => (None, rule),
            Outcome::Refused(why) => (Some(why), None),
        };
        let variables = rule.map(|rule| &rule.variables);
        let all = self.variables.iter().chain(variables.into_iter().flatten());
        let name = self.workflow.name(&Conditions::of_pipeline(context, tree, all));
        let mut notes: Vec<String> = self.workflow.notes().collect();
        let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
        for job in self.jobs.values() {
            notes.extend(job.rules.iter().flatten().filter_map(Rule::note));
            let (job, verdict) = select(job, context, tree, rule)?;
            match verdict {
                Ok(reason) => chosen.push((job, reason)),
                Err(why) => left_out.push((job.name, why)),
            }
        }
        chosen.sort_by_key(|(job, _)| self.stage(job));
        let outer = |job: &Job| job.stage == ".pre" || job.stage == ".post";
        if refused.is_none() && chosen.iter().all(|(job, _)| outer(job)) {
            refused = Some("no job is for it".to_owned());
        }
        let (jobs, reasons): (Vec<Job>, Vec<String>) = chosen.into_iter().unzip();
        let stages: Vec<usize> = jobs.iter().map(|job| self.stage(job)).collect();
        let order = Order { jobs: &jobs, stages: &stages, left_out: &left_out };
        let needs: Vec<_> = (0..jobs.len()).map(|at| order.needs(at)).collect::<Result<_>>()?;
        order.check_circles(&needs)?;
        let artifacts: Vec<_> = (0..jobs.len()).map(|at| order.artifacts_of(at)).collect();
        let planned = jobs.into_iter().zip(reasons).zip(stages).zip(needs.into_iter().zip(artifacts));
        let planned = planned.map(|(((job, reason), stage), (needs, artifacts_of))| PlannedJob {
            job,
            reason,
            stage,
            needs,
            artifacts_of,
        });
        let jobs = planned.collect();
        Ok(Plan { name, refused, jobs, left_out, notes })
    }

    /// One job, and what it gets of others.
    ///
    /// # Errors
    ///
    /// There is no such job, or files cannot be compared with what a rule of it names.
    pub fn select(&self, name: &str, context: &ExecContext, tree: &dyn WorkTree) -> Result<Selection> {
        let conditions = Conditions::of_pipeline(context, tree, self.variables.iter());
        let (refused, rule) = match self.workflow.decide(&conditions)? {
            Outcome::Runs(rule) => (None, rule),
            Outcome::Refused(why) => (Some(why), None),
        };
        let (job, verdict) = select(self.job(name)?, context, tree, rule)?;
        // Others only matter for what they left, and so may have mistakes.
        let others = self.jobs.values().filter(|other| other.name != job.name);
        let chosen = others.filter_map(|other| match select(other, context, tree, rule) {
            Ok((other, Ok(_))) => Some(other),
            Ok((_, Err(_))) | Err(_) => None,
        });
        let jobs: Vec<Job> = std::iter::once(job.clone()).chain(chosen).collect();
        let stages: Vec<usize> = jobs.iter().map(|job| self.stage(job)).collect();
        let order = Order { jobs: &jobs, stages: &stages, left_out: &[] };
        let artifacts_of = order.artifacts_of(0).into_iter().filter_map(|at| jobs.get(at).cloned()).collect();
        Ok(Selection { job, left_out: refused.or(verdict.err()), artifacts_of })
    }

    /// The place of a job's stage.
    fn stage(&self, job: &Job) -> usize {
        self.stages.iter().position(|stage| *stage == job.stage).unwrap_or_default()
    }
}

/// A job with what the workflow and its own rules say.
fn select(
    job: &Job,
    context: &ExecContext,
    tree: &dyn WorkTree,
    workflow: Option<&Rule>,
) -> Result<(Job, Verdict)> {
    let mut job = job.clone();
    if let Some(rule) = workflow {
        let scope = &job.scope;
        let reaches = |name: &str| scope.inherited.has(name) && !scope.own.contains(name);
        let inherited: IndexMap<String, Variable> =
            rule.variables.clone().into_iter().filter(|(name, _)| reaches(name)).collect();
        job.variables.extend(inherited);
    }
    let conditions = Conditions::of_job(context, tree, &job);
    let verdict = match &job.rules {
        None => job.policies.decide(&conditions)?,
        Some(rules) => match rules::first(rules, &conditions)? {
            None => Err("no rule holds".to_owned()),
            Some(rule) if rule.when == Some(When::Never) => {
                Err(format!("{} says `when: never`", rule.describe()))
            }
            Some(rule) => {
                let (reason, rule) = (rule.describe(), rule.clone());
                apply(&mut job, rule);
                Ok(reason)
            }
        },
    };
    let verdict = match verdict {
        Ok(_) if job.when == When::Never => Err("it says `when: never`".to_owned()),
        verdict => verdict,
    };
    let conditions = Conditions::of_job(context, tree, &job);
    job.resource_group = job.resource_group.as_ref().map(|group| conditions.expand(group));
    Ok((job, verdict))
}

fn apply(job: &mut Job, rule: Rule) {
    job.when = rule.when.unwrap_or(job.when);
    job.start_in = rule.start_in.or(job.start_in.take());
    if let Some(allow) = rule.allow_failure {
        job.allow_failure = if allow { AllowFailure::Yes } else { AllowFailure::No };
    }
    job.variables.extend(rule.variables);
    if rule.needs.is_some() {
        job.needs = rule.needs;
    }
}

/// The order of chosen jobs.
struct Order<'a> {
    jobs: &'a [Job],
    stages: &'a [usize],
    left_out: &'a [(String, String)],
}

impl Order<'_> {
    /// The jobs of a name, which may be that of all instances.
    fn named(&self, name: &str) -> Vec<usize> {
        let named = |job: &Job| job.name == name || job.base == name;
        self.jobs.iter().enumerate().filter(|(_, job)| named(job)).map(|(at, _)| at).collect()
    }

    fn needs(&self, at: usize) -> Result<Option<Vec<usize>>> {
        let Some(job) = self.jobs.get(at) else { return Ok(None) };
        let Some(needs) = &job.needs else { return Ok(None) };
        let mut found = Vec::new();
        for need in needs {
            let before = found.len();
            found.extend(self.named(&need.job));
            let error = |text: String| Err(Error::invalid(&job.at, format!("job `{}`: {text}", job.name)));
            if found.len() == before && !need.optional {
                return error(self.absent(&need.job));
            }
            let later =
                found.iter().skip(before).find(|other| self.stages.get(**other) > self.stages.get(at));
            if let Some(other) = later.and_then(|other| self.jobs.get(*other)) {
                return error(format!("needs `{}`, which is in the later stage `{}`", need.job, other.stage));
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(Some(found))
    }

    fn absent(&self, name: &str) -> String {
        let left_out = self.left_out.iter().find(|(other, _)| other == name || is_instance(other, name));
        match left_out {
            Some((_, why)) => format!(
                "needs `{name}`, which is not in this pipeline ({why}); `optional: true` lets it run without that job"
            ),
            None => {
                let meant = nearest(name, self.jobs.iter().map(|job| job.name.as_str()));
                let hint = meant.map(|job| format!("; did you mean `{job}`?")).unwrap_or_default();
                format!("needs `{name}`, which does not exist{hint}")
            }
        }
    }

    /// Which artifacts a job fetches: those of what it waits for, as far as `dependencies` and `needs` do not say less.
    fn artifacts_of(&self, at: usize) -> Vec<usize> {
        let Some(job) = self.jobs.get(at) else { return Vec::new() };
        let mut found: Vec<usize> = match &job.needs {
            Some(needs) => {
                needs.iter().filter(|need| need.artifacts).flat_map(|need| self.named(&need.job)).collect()
            }
            None => {
                (0..self.jobs.len()).filter(|other| self.stages.get(*other) < self.stages.get(at)).collect()
            }
        };
        if let Some(dependencies) = &job.dependencies {
            let wanted: Vec<usize> = dependencies.iter().flat_map(|name| self.named(name)).collect();
            found.retain(|other| wanted.contains(other));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Jobs of one stage may need one another, but not in a circle.
    fn check_circles(&self, needs: &[Option<Vec<usize>>]) -> Result<()> {
        let mut settled = vec![false; needs.len()];
        loop {
            let free = |at: &usize| {
                let needs = needs.get(*at).and_then(Option::as_ref);
                !settled.get(*at).copied().unwrap_or(true)
                    && needs.is_none_or(|needs| needs.iter().all(|other| settled.get(*other) == Some(&true)))
            };
            let next: Vec<usize> = (0..needs.len()).filter(free).collect();
            if next.is_empty() {
                break;
            }
            for at in next {
                if let Some(slot) = settled.get_mut(at) {
                    *slot = true;
                }
            }
        }
        let stuck: Vec<&Job> =
            self.jobs.iter().zip(&settled).filter(|(_, settled)| !**settled).map(|(job, _)| job).collect();
        let Some(first) = stuck.first() else { return Ok(()) };
        let names: Vec<String> = stuck.iter().map(|job| format!("`{}`", job.name)).collect();
        Err(Error::invalid(
            &first.at,
            format!("these jobs need one another in a circle: {}", names.join(", ")),
        ))
    }
}

/// Whether a job is an instance of one with `parallel`.
fn is_instance(job: &str, base: &str) -> bool {
    let rest = job.strip_prefix(base).unwrap_or_default();
    rest.starts_with(": [") || rest.starts_with(' ') && rest.contains('/')
}
