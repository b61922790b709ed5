//! Inputs of a job: `${{ job.inputs.NAME }}` in what the job says is replaced, before any variable is.
//!
//! What is replaced where, and what fails, is as in the official runner (protocol reference 3.14): a job without inputs
//! is left alone, whatever it holds.

mod expression;
mod text;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use tart_spec::{Artifact, Cache, Image, Input, JobPayload, When};

use crate::context::RunnerContext;
use crate::flags::Flag;
use crate::plan::resolve_flags;
use crate::stages::AFTER_SCRIPT;
use expression::{Evaluation, Fault};
use text::Text;
use value::Value;

/// Inputs that a job may have. GitLab allows 50.
const MAX_INPUTS: usize = 1000;

/// What the inputs of a job may add to it, in bytes.
const MAX_ADDED: usize = 16 << 20;

/// Why inputs cannot be put into a job: a mistake in the job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputsError {
    /// The server sends what is no input.
    #[error("failed to interpolate job inputs: {0}")]
    Input(String),
    /// A template cannot be evaluated.
    #[error("failed to interpolate job inputs in {place}: {reason}")]
    Template {
        /// Where it is, such as `image`.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Puts the job's inputs into its templates. Without inputs, or with `FF_ENABLE_JOB_INPUTS_INTERPOLATION` off, it leaves
/// the job as it is.
///
/// # Errors
/// An input that is not of its type, a template that does not make sense, or one that would show a sensitive input.
pub fn interpolate(payload: &mut JobPayload, context: &RunnerContext) -> Result<(), InputsError> {
    let flags = resolve_flags(payload, context, &mut Vec::new());
    if payload.inputs.is_empty() || !flags.is_on(Flag::JobInputsInterpolation) {
        return Ok(());
    }
    let inputs = Value::object(BTreeMap::from([("inputs".to_owned(), values(&payload.inputs)?)]));
    let mut templates = Templates { evaluation: Evaluation::new(&inputs, MAX_ADDED) };
    for step in payload.steps.iter_mut().filter(|step| step.name == "script" || step.name == AFTER_SCRIPT) {
        templates.each(&step.name, &mut step.script)?;
    }
    if let Some(image) = &mut payload.image {
        templates.image("image", image)?;
    }
    for service in &mut payload.services {
        templates.image("services", service)?;
    }
    for artifact in &mut payload.artifacts {
        templates.artifact(artifact)?;
    }
    for cache in &mut payload.cache {
        templates.cache(cache)?;
    }
    Ok(())
}

/// The inputs as an object.
fn values(inputs: &[Input]) -> Result<Value, InputsError> {
    if inputs.len() > MAX_INPUTS {
        return Err(InputsError::Input(format!(
            "there are {} inputs, of {MAX_INPUTS} at most",
            inputs.len()
        )));
    }
    let mut values = BTreeMap::new();
    for Input { key, value } in inputs {
        if key.is_empty() {
            return Err(InputsError::Input("there is an input without a name".to_owned()));
        }
        let wrong = |text: String| InputsError::Input(format!("input \"{}\" {text}", key.escape_debug()));
        let content = Value::from_json(&value.content, value.sensitive)
            .ok_or_else(|| wrong("has a number that is too large".to_owned()))?;
        let kind = match value.r#type.as_str() {
            "struct" => "object",
            "string" | "number" | "boolean" | "array" => &value.r#type,
            other => return Err(wrong(format!("has the unknown type \"{}\"", other.escape_debug()))),
        };
        if content.kind() != kind {
            return Err(wrong(format!("should be of type {kind}, but is {}", content.kind())));
        }
        // As in the official runner, the first of a name counts.
        values.entry(key.clone()).or_insert(content);
    }
    Ok(Value::object(values))
}

/// Goes through the parts of a job.
struct Templates<'v> {
    evaluation: Evaluation<'v>,
}

impl Templates<'_> {
    fn one(&mut self, place: &str, text: &mut String) -> Result<(), InputsError> {
        if !text.contains("${{") {
            return Ok(());
        }
        let result = self.filled(text);
        *text = result.map_err(|Fault(reason)| InputsError::Template { place: place.to_owned(), reason })?;
        Ok(())
    }

    fn each(&mut self, place: &str, texts: &mut [String]) -> Result<(), InputsError> {
        texts.iter_mut().try_for_each(|text| self.one(place, text))
    }

    fn option(&mut self, place: &str, text: &mut Option<String>) -> Result<(), InputsError> {
        text.as_mut().map_or(Ok(()), |text| self.one(place, text))
    }

    fn when(&mut self, place: &str, when: &mut When) -> Result<(), InputsError> {
        if let When::Other(text) = when {
            self.one(place, text)?;
            *when = When::from(std::mem::take(text));
        }
        Ok(())
    }

    fn image(&mut self, place: &str, image: &mut Image) -> Result<(), InputsError> {
        self.one(place, &mut image.name)?;
        self.each(&format!("{place}:command"), &mut image.command)?;
        self.each(&format!("{place}:entrypoint"), &mut image.entrypoint)?;
        self.each(&format!("{place}:pull_policy"), &mut image.pull_policy)?;
        let options = &mut image.executor_opts;
        self.option(&format!("{place}:docker:platform"), &mut options.docker.platform)?;
        self.option(&format!("{place}:docker:user"), &mut options.docker.user)?;
        self.option(&format!("{place}:kubernetes:user"), &mut options.kubernetes.user)
    }

    fn artifact(&mut self, artifact: &mut Artifact) -> Result<(), InputsError> {
        self.option("artifacts:name", &mut artifact.name)?;
        self.each("artifacts:paths", &mut artifact.paths)?;
        self.each("artifacts:exclude", &mut artifact.exclude)?;
        self.when("artifacts:when", &mut artifact.when)?;
        self.option("artifacts:expire_in", &mut artifact.expire_in)
    }

    fn cache(&mut self, cache: &mut Cache) -> Result<(), InputsError> {
        self.one("cache:key", &mut cache.key)?;
        self.one("cache:policy", &mut cache.policy)?;
        self.each("cache:paths", &mut cache.paths)?;
        self.when("cache:when", &mut cache.when)?;
        self.each("cache:fallback_keys", &mut cache.fallback_keys)
    }

    /// The text with its templates evaluated. `\${{` stands for `${{`.
    fn filled(&mut self, template: &str) -> Result<String, Fault> {
        let mut text = Text::new(template);
        let mut out = String::new();
        loop {
            let plain = text.take_until("${{");
            if !text.take("${{") {
                out.push_str(plain);
                return Ok(out);
            }
            if let Some(plain) = plain.strip_suffix('\\') {
                out.push_str(plain);
                out.push_str("${{");
                continue;
            }
            out.push_str(plain);
            let value = self.evaluation.delimited(&mut text)?;
            if value.sensitive {
                return Err(Fault::new("sensitive inputs cannot be put into a template"));
            }
            self.evaluation.write(&value, &mut out)?;
        }
    }
}
