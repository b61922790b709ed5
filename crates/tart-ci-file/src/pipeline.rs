//! From files to jobs.

use indexmap::{IndexMap, IndexSet};

use crate::{
    conditions::{Conditions, WorkTree},
    context::ExecContext,
    error::{Error, Location, Result, nearest},
    extends,
    files::Files,
    include::Includer,
    job::{self, Inherited, Job, Reader},
    node::{Budget, Map, Node, Value},
    parallel, reference,
    variables::{self, Variable},
    workflow::Workflow,
};

/// All that a CI file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// The stages in order, with `.pre` and `.post`.
    pub stages: Vec<String>,
    /// The jobs by name, in the order of the file.
    pub jobs: IndexMap<String, Job>,
    /// Variables of the top of the file.
    pub variables: IndexMap<String, Variable>,
    pub(crate) workflow: Workflow,
    /// What is doubtful in the files.
    pub warnings: Vec<String>,
}

/// The most jobs of a pipeline.
const MAX_JOBS: usize = 2000;
/// Keywords of jobs that may stand at the top of the file, an older way to write `default`.
const OLD_DEFAULTS: &[&str] = &["image", "services", "cache", "before_script", "after_script"];
/// Keywords of `default`.
const DEFAULTS: &[&str] = &[
    "after_script",
    "artifacts",
    "before_script",
    "cache",
    "hooks",
    "id_tokens",
    "identity",
    "image",
    "interruptible",
    "retry",
    "services",
    "tags",
    "timeout",
];
/// Top-level names that are no jobs.
const RESERVED: &[&str] = &[
    "default",
    "include",
    "stages",
    "types",
    "variables",
    "workflow",
    "spec",
    "image",
    "services",
    "cache",
    "before_script",
    "after_script",
];

impl Pipeline {
    /// Evaluates the CI file at `path`, which is relative to the root of the repository.
    ///
    /// # Errors
    ///
    /// With the first mistake in the file or in one that it includes.
    pub fn load(files: &dyn Files, path: &str) -> Result<Self> {
        Self::read(files, path, None)
    }

    /// As [`Self::load`], for an event: conditions of `include` are evaluated, and paths in it may have variables.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_for(
        files: &dyn Files,
        path: &str,
        context: &ExecContext,
        tree: &dyn WorkTree,
    ) -> Result<Self> {
        Self::read(files, path, Some(Conditions::of_pipeline(context, tree, std::iter::empty())))
    }

    fn read(files: &dyn Files, path: &str, conditions: Option<Conditions<'_>>) -> Result<Self> {
        let mut budget = Budget::new();
        let mut includer = Includer::new(files, conditions.as_ref(), &mut budget);
        let config = includer.load(path, &mut Vec::new())?;
        let warnings = std::mem::take(&mut includer.warnings);
        let config = extends::resolve(config, &mut budget)?;
        let config = reference::resolve(&config, &mut budget)?;
        assemble(path, &config, warnings, &mut budget)
    }

    /// The job of that name. Of a job with `parallel`, each instance has its own name.
    ///
    /// # Errors
    ///
    /// With the names of all jobs if there is none.
    pub fn job(&self, name: &str) -> Result<&Job> {
        self.jobs.get(name).ok_or_else(|| Error::UnknownJob {
            name: name.to_owned(),
            jobs: self.jobs.keys().cloned().collect(),
        })
    }
}

fn assemble(path: &str, config: &Map, warnings: Vec<String>, budget: &mut Budget) -> Result<Pipeline> {
    let stages = stages(config)?;
    let defaults = defaults(config)?;
    let globals = match config.get("variables") {
        Some(node) => variables::read(Reader { owner: "global keyword" }, node, true)?,
        None => IndexMap::new(),
    };
    let mut jobs = IndexMap::new();
    for (name, node) in config {
        if name.starts_with('.') || RESERVED.contains(&name.as_str()) {
            continue;
        }
        check_name(name, node)?;
        for job in instances(name, node, &defaults, &globals, budget)? {
            if !stages.contains(&job.stage) {
                return Err(unknown_stage(&job, &stages));
            }
            jobs.insert(job.name.clone(), job);
            if jobs.len() > MAX_JOBS {
                return Err(node.error(format!("the pipeline has more than {MAX_JOBS} jobs")));
            }
        }
    }
    check_needs(&jobs, config)?;
    if jobs.is_empty() {
        let at = Location { file: path.into(), line: 1 };
        return Err(Error::invalid(
            &at,
            "there is no job in this file; names that begin with `.` are templates",
        ));
    }
    let stages = stages.into_iter().collect();
    let workflow = Workflow::read(config.get("workflow"))?;
    Ok(Pipeline { stages, jobs, variables: globals, workflow, warnings })
}

fn unknown_stage(job: &Job, stages: &IndexSet<String>) -> Error {
    let meant = nearest(&job.stage, stages.iter().map(String::as_str));
    let hint = meant.map(|stage| format!(" (did you mean `{stage}`?)")).unwrap_or_default();
    let list = stages.iter().map(|stage| format!("`{stage}`")).collect::<Vec<_>>().join(", ");
    let text = format!("job `{}`: there is no stage `{}`{hint}; the stages are {list}", job.name, job.stage);
    Error::invalid(&job.at, text)
}

/// Jobs that others need must exist, by their own name or as an instance.
fn check_needs(jobs: &IndexMap<String, Job>, config: &Map) -> Result<()> {
    for job in jobs.values() {
        for need in job.needs.iter().flatten().filter(|need| !need.optional) {
            if !jobs.contains_key(&need.job) && !config.contains_key(&need.job) {
                let meant = nearest(&need.job, jobs.keys().map(String::as_str));
                let hint = meant.map(|job| format!("; did you mean `{job}`?")).unwrap_or_default();
                let text = format!("job `{}`: needs `{}`, which does not exist{hint}", job.name, need.job);
                return Err(Error::invalid(&job.at, text));
            }
        }
    }
    Ok(())
}

fn check_name(name: &str, node: &Node) -> Result<()> {
    if node.as_map().is_none() {
        let meant = nearest(name, RESERVED.iter().copied());
        let hint = meant.map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
        return Err(node.error(format!(
            "`{name}` must be a job, which is a map with a `script`, not {}{hint}",
            node.kind()
        )));
    }
    if name.trim().is_empty() || name.chars().count() > 255 {
        return Err(node.error("the name of a job must have 1 to 255 characters"));
    }
    Ok(())
}

/// `stages` between `.pre` and `.post`.
fn stages(config: &Map) -> Result<IndexSet<String>> {
    let reader = Reader { owner: "global keyword" };
    let named = match config.get("stages").or_else(|| config.get("types")).filter(|node| !node.is_null()) {
        Some(node) => reader.only_list(node, "stages")?,
        None => ["build", "test", "deploy"].map(str::to_owned).to_vec(),
    };
    let inner = named.into_iter().filter(|stage| stage != ".pre" && stage != ".post");
    Ok([".pre".to_owned()].into_iter().chain(inner).chain([".post".to_owned()]).collect())
}

/// `default`, with the older keywords of the top of the file.
fn defaults(config: &Map) -> Result<Map> {
    let reader = Reader { owner: "`default`" };
    let mut defaults = match config.get("default").filter(|node| !node.is_null()) {
        Some(node) => reader.map(node, "default")?.clone(),
        None => Map::new(),
    };
    reader.known_keys(&defaults, "", DEFAULTS)?;
    for key in OLD_DEFAULTS {
        if let Some(node) = config.get(*key) {
            if defaults.contains_key(*key) {
                return Err(
                    node.error(format!("`{key}` is given both here and in `default`: remove this one"))
                );
            }
            defaults.insert((*key).to_owned(), node.clone());
        }
    }
    Ok(defaults)
}

/// The job, or its instances if it has `parallel`.
fn instances(
    name: &str,
    node: &Node,
    defaults: &Map,
    globals: &IndexMap<String, Variable>,
    budget: &mut Budget,
) -> Result<Vec<Job>> {
    let owner = format!("job `{name}`");
    let reader = Reader { owner: &owner };
    let own = reader.map(node, name)?;
    let inherit = own
        .get("inherit")
        .filter(|node| !node.is_null())
        .map(|node| reader.map(node, "inherit"))
        .transpose()?;
    if let Some(inherit) = inherit {
        reader.known_keys(inherit, "inherit", &["default", "variables"])?;
    }
    let inherits_default = inherited(reader, inherit, "default")?;
    let inherits_variable = inherited(reader, inherit, "variables")?;

    let mut map = own.clone();
    let no_default = own.contains_key("trigger");
    for (key, value) in defaults.iter().filter(|(key, _)| !no_default && inherits_default.has(key)) {
        // A default replaces nothing that the job sets, even to an empty list.
        if map.get(key).is_none_or(Node::is_null) {
            budget.charge(&node.at, value)?;
            map.insert(key.clone(), value.clone());
        }
    }
    let inherited: IndexMap<String, Variable> = globals
        .iter()
        .filter(|(name, _)| inherits_variable.has(name))
        .map(|(name, variable)| (name.clone(), variable.clone()))
        .collect();
    let bytes = inherited.iter().map(|(name, variable)| name.len() + variable.value.len()).sum();
    budget.charge_amount(&node.at, inherited.len(), bytes)?;

    let resolved = Node::new(node.at.clone(), Value::Map(map));
    let mut job = job::job(name, &resolved, &inherited)?;
    job.scope.inherited = inherits_variable;
    let Some(parallel) = own.get("parallel").filter(|node| !node.is_null()) else { return Ok(vec![job]) };
    let variants = parallel::variants(reader, name, parallel)?;
    for _ in &variants {
        budget.charge_amount(&node.at, resolved.count() + inherited.len(), resolved.weight() + bytes)?;
    }
    Ok(variants.into_iter().map(|variant| variant.of(&job)).collect())
}

fn inherited(reader: Reader<'_>, inherit: Option<&Map>, key: &str) -> Result<Inherited> {
    let Some(node) = inherit.and_then(|inherit| inherit.get(key)).filter(|node| !node.is_null()) else {
        return Ok(Inherited::All);
    };
    match node.value {
        Value::Bool(true) => Ok(Inherited::All),
        Value::Bool(false) => Ok(Inherited::None),
        Value::List(_) => Ok(Inherited::Only(reader.only_list(node, &format!("inherit:{key}"))?)),
        _ => Err(reader.wrong(node, &format!("inherit:{key}"), "`true`, `false` or a list of names")),
    }
}
