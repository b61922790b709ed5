use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::plan::PlanError;
use crate::variables::tests::context;

/// A job of these inputs and this script.
fn job(inputs: serde_json::Value, script: &str) -> JobPayload {
    let inputs: Vec<serde_json::Value> = inputs
        .as_object()
        .expect("an object")
        .iter()
        .map(|(key, content)| {
            let kind = match content {
                serde_json::Value::Bool(_) => "boolean",
                serde_json::Value::Number(_) => "number",
                serde_json::Value::Array(_) => "array",
                serde_json::Value::Object(_) => "struct",
                _ => "string",
            };
            json!({"key": key, "value": {
                "type": kind, "content": content, "sensitive": key.starts_with("secret")
            }})
        })
        .collect();
    let steps = json!([{"name": "script", "script": [script]}]);
    serde_json::from_value(json!({"inputs": inputs, "steps": steps})).expect("a payload")
}

fn some_inputs() -> serde_json::Value {
    json!({
        "name": "fred", "empty": "", "age": 41.5, "replicas": 3, "debug": false,
        "friends": ["bob", "sally \"s\""], "address": {"city": "Sydney", "no": 42}, "with-hyphen": "yes",
        "secret": "hunter2", "secret_list": ["hunter3"], "secret_object": {"a": {"b": "hunter4"}},
    })
}

/// The script with the inputs of [`some_inputs`].
fn filled(script: &str) -> Result<String, String> {
    let mut job = job(some_inputs(), script);
    interpolate(&mut job, &context()).map_err(|error| error.to_string())?;
    Ok(job.steps.remove(0).script.remove(0))
}

fn value(expression: &str) -> String {
    match filled(&format!("${{{{ {expression} }}}}")) {
        Ok(text) => text,
        Err(error) => {
            error.strip_prefix("failed to interpolate job inputs in script: ").unwrap_or(&error).into()
        }
    }
}

#[test]
fn inputs_of_all_types_are_put_into_scripts() {
    insta::assert_snapshot!(filled("a ${{ job.inputs.name }} b ${{job.inputs.age}}-${{ job.inputs.replicas }}").unwrap(), @"a fred b 41.5-3");
    insta::assert_snapshot!(filled("${{ job.inputs.debug }} '${{ job.inputs.friends }}'").unwrap(), @r#"false '["bob","sally \"s\""]'"#);
    insta::assert_snapshot!(filled("${{ job.inputs.address }} ${{ job.inputs.address.city }} ${{ job.inputs.friends[0] }}").unwrap(), @r#"{"city":"Sydney","no":42} Sydney bob"#);
    insta::assert_snapshot!(filled("${{\n  job.inputs[\"with-hyphen\"]\n}}").unwrap(), @"yes");
}

#[test]
fn other_dollars_and_braces_stay() {
    for text in ["echo $ ${x} ${{", "$name ${name} }} { ${ {", "$[[ inputs.x ]]"] {
        let rest = text.strip_suffix("${{").unwrap_or(text);
        assert_eq!(filled(rest).as_deref(), Ok(rest));
    }
    assert_eq!(filled(r"\${{ job.inputs.name }}").as_deref(), Ok("${{ job.inputs.name }}"));
    assert_eq!(filled(r"\\${{ job.inputs.name }} \$").as_deref(), Ok(r"\${{ job.inputs.name }} \$"));
}

#[test]
fn expressions_follow_the_language_of_gitlab() {
    let expected = [
        ("null", "<null>"),
        ("1.5e3 + 2E-1", "1500.2"),
        ("1 + 2 * 3 - 8 / 4 % 3", "5"),
        ("(1 + 2) * -3", "-9"),
        ("-7 % 3", "-1"),
        (r#"'a\'b\\n${{ x }}' + "c\td\u00e9 \${{""#, "a'b\\n${{ x }}c\tdé ${{"),
        (r#""<${{ job.inputs.name + "!" }}>""#, "<fred!>"),
        (r#"job.inputs.name == "fred" && "prod" || "dev""#, "prod"),
        (r#"job.inputs.debug && "-v" || """#, ""),
        (r#"job.inputs.empty || "default""#, "default"),
        ("1 == '1'", "false"),
        ("1 < 2 == true", "true"),
        ("'b' > 'abc'", "true"),
        ("[1, 2] < [1, 2, 0]", "true"),
        ("{a: 1, 'b': 2,} == {'b': 2, (\"a\"): 1}", "true"),
        ("{a: 1} < {a: 0, b: 0}", "true"),
        ("[1, 'a', null, [],]", r#"[1,"a",null,[]]"#),
        ("!0 && !'' && ![] && !{} && !null && !false", "true"),
        ("!!job.inputs.friends", "true"),
        ("str(job.inputs.replicas) + '!'", "3!"),
        ("num(' 42 ') + num(1)", "43"),
        ("bool('x')", "true"),
        ("bool(job.inputs.empty)", "false"),
        ("job['in' + 'puts'].name", "fred"),
        ("false && nothing.of.this / 0 || 'skipped'", "skipped"),
        ("true || num('x') || [nothing][9] || {(1): 2}", "true"),
    ];
    for (expression, result) in expected {
        assert_eq!(value(expression), result, "{expression}");
    }
}

#[test]
fn mistakes_are_said() {
    insta::assert_snapshot!(filled("${{ job.inputs.nmae }}").unwrap_err(), @"failed to interpolate job inputs in script: there is no `nmae`; there is address, age, debug, empty, friends, name, replicas, secret, secret_list, secret_object, with-hyphen");
    insta::assert_snapshot!(value("job.inputs.with-hyphen"), @"there is no `with`; there is address, age, debug, empty, friends, name, replicas, secret, secret_list, secret_object, with-hyphen");
    insta::assert_snapshot!(value("inputs.name"), @r#"there is no `inputs`; inputs are `job.inputs.NAME`, or `job.inputs["NAME"]` for names with hyphens"#);
    insta::assert_snapshot!(value("'a' + 1"), @"`+` is not for string and number; `str(...)` makes a string of any value");
    insta::assert_snapshot!(value("1 / 0"), @"division by zero");
    insta::assert_snapshot!(value("1e308 * 10"), @"a number becomes too large");
    insta::assert_snapshot!(value("job.inputs.friends[2]"), @"there is no [2] in an array of 2");
    insta::assert_snapshot!(value("job.inputs.friends[0.5]"), @"there is no [0.5] in an array of 2");
    insta::assert_snapshot!(value("job.inputs.friends.first"), @"array has no property of a string");
    insta::assert_snapshot!(value("upper('x')"), @"there is no function `upper`; there are `str`, `num` and `bool`");
    insta::assert_snapshot!(value("num('x')"), @"`num` got a string that is no number");
    insta::assert_snapshot!(value("if"), @"`if` is a reserved word");
    insta::assert_snapshot!(value("1 2"), @"expected an operator or `}}`, found `2`");
    insta::assert_snapshot!(value("'a"), @"a string that begins with `'` does not end");
    insta::assert_snapshot!(value(r"'' + -"), @"expected a value, found `}`");
    insta::assert_snapshot!(filled("echo ${{ job.inputs.name").unwrap_err(), @"failed to interpolate job inputs in script: expected an operator or `}}`, found the end of the text");
    insta::assert_snapshot!(value(&"(".repeat(100_000)), @"more than 64 brackets within each other");
    insta::assert_snapshot!(value(&"!".repeat(100_000)), @"more than 64 brackets within each other");
}

#[test]
fn nothing_sensitive_gets_into_a_template() {
    let said = "sensitive inputs cannot be put into a template";
    for expression in [
        "job.inputs.secret",
        "'x' + job.inputs.secret",
        "\"${{ job.inputs.secret }}\"",
        "str(job.inputs.secret)",
        "job.inputs.secret == 'hunter1'",
        "job.inputs.secret && 'x'",
        "!job.inputs.secret",
        "bool(job.inputs.secret)",
        "job.inputs.secret_list[0]",
        "job.inputs.secret_object.a.b",
        "[job.inputs.secret]",
        "{a: job.inputs.secret}",
        "{(job.inputs.secret): 1}",
        "job.inputs",
        "str(job)",
        "job == 1",
    ] {
        assert_eq!(value(expression), said, "{expression}");
    }
    assert_eq!(value("[job.inputs.secret, 'x'][1]"), "x");
    assert_eq!(value("false && job.inputs.secret"), "false");
    insta::assert_snapshot!(value("job.inputs.secret + 1"), @"`+` is not for string and number; `str(...)` makes a string of any value");
}

#[test]
fn inputs_get_into_images_artifacts_and_caches_but_not_elsewhere() {
    let mut job = job(json!({"x": "y", "always": "always"}), "true");
    let parts = json!({
        "steps": [
            {"name": "script", "script": ["${{ job.inputs.x }}"]},
            {"name": "release", "script": ["${{ job.inputs.x }}"]},
            {"name": "after_script", "script": ["${{ job.inputs.x }}"]},
        ],
        "image": {"name": "i:${{ job.inputs.x }}", "entrypoint": ["${{ job.inputs.x }}"],
            "pull_policy": ["${{ job.inputs.always }}"],
            "executor_opts": {"docker": {"user": "${{ job.inputs.x }}"}}},
        "services": [{"name": "s:${{ job.inputs.x }}", "command": ["${{ job.inputs.x }}"], "alias": "${{ a }}"}],
        "artifacts": [{"name": "${{ job.inputs.x }}", "paths": ["${{ job.inputs.x }}/"],
            "exclude": ["${{ job.inputs.x }}"], "when": "${{ job.inputs.always }}",
            "expire_in": "${{ job.inputs.x }}"}],
        "cache": [{"key": "${{ job.inputs.x }}", "policy": "pull${{ '' }}", "paths": ["${{ job.inputs.x }}"],
            "when": "on_${{ 'failure' }}", "fallback_keys": ["${{ job.inputs.x }}"]}],
        "hooks": [{"name": "pre_get_sources_script", "script": ["${{ job.inputs.x }}"]}],
        "variables": [{"key": "A", "value": "${{ job.inputs.x }}"}],
    });
    let inputs = std::mem::take(&mut job.inputs);
    let mut job: JobPayload = serde_json::from_value(parts).expect("a payload");
    job.inputs = inputs;
    interpolate(&mut job, &context()).expect("templates");

    let scripts: Vec<&str> = job.steps.iter().map(|step| step.script[0].as_str()).collect();
    assert_eq!(scripts, ["y", "${{ job.inputs.x }}", "y"]);
    let image = job.image.as_ref().expect("an image");
    assert_eq!((image.name.as_str(), image.entrypoint[0].as_str()), ("i:y", "y"));
    assert_eq!(image.pull_policy, ["always"]);
    assert_eq!(image.executor_opts.docker.user.as_deref(), Some("y"));
    let service = &job.services[0];
    assert_eq!(
        (service.name.as_str(), service.command[0].as_str(), service.alias.as_str()),
        ("s:y", "y", "${{ a }}")
    );
    let artifact = &job.artifacts[0];
    assert_eq!((artifact.name.as_deref(), artifact.expire_in.as_deref()), (Some("y"), Some("y")));
    assert_eq!((artifact.paths[0].as_str(), artifact.exclude[0].as_str()), ("y/", "y"));
    assert_eq!(artifact.when, When::Always);
    let cache = &job.cache[0];
    assert_eq!((cache.key.as_str(), cache.policy.as_str(), &cache.when), ("y", "pull", &When::OnFailure));
    assert_eq!((cache.paths[0].as_str(), cache.fallback_keys[0].as_str()), ("y", "y"));
    assert_eq!(job.hooks[0].script, ["${{ job.inputs.x }}"]);
    assert_eq!(job.variables[0].value, "${{ job.inputs.x }}");
}

#[test]
fn jobs_without_inputs_are_left_alone() {
    for script in ["${{ 1 + 2 }}", "${{ job.inputs.x }}", "${{", "${{ secrets.GITHUB }}"] {
        let mut without = job(json!({}), script);
        interpolate(&mut without, &context()).expect("no inputs");
        assert_eq!(without.steps[0].script, [script]);

        let mut off = job(json!({"x": 1}), script);
        off.variables = serde_json::from_value(json!([
            {"key": "FF_ENABLE_JOB_INPUTS_INTERPOLATION", "value": "false"}
        ]))
        .expect("variables");
        interpolate(&mut off, &context()).expect("switched off");
        assert_eq!(off.steps[0].script, [script]);
    }
}

#[test]
fn what_is_no_input_fails_the_job() {
    let error = |input: serde_json::Value| {
        let mut job: JobPayload = serde_json::from_value(json!({"inputs": [input]})).expect("a payload");
        interpolate(&mut job, &context()).expect_err("no input")
    };
    insta::assert_snapshot!(error(json!({})), @"failed to interpolate job inputs: there is an input without a name");
    insta::assert_snapshot!(error(json!({"key": "a", "value": {"type": "string"}})), @r#"failed to interpolate job inputs: input "a" should be of type string, but is null"#);
    insta::assert_snapshot!(error(json!({"key": "a", "value": {"content": "x"}})), @r#"failed to interpolate job inputs: input "a" has the unknown type """#);
    let wrong =
        error(json!({"key": "a", "value": {"type": "number", "content": "secret", "sensitive": true}}));
    insta::assert_snapshot!(wrong, @r#"failed to interpolate job inputs: input "a" should be of type number, but is string"#);
    let failure = crate::outcome::Failure::from(PlanError::from(wrong));
    assert_eq!(failure.reason(), tart_spec::FailureReason::RunnerConfigurationError);
}

#[test]
fn inputs_cannot_make_a_job_of_any_size() {
    let big = "x".repeat(1 << 20);
    let script = "${{ job.inputs.big }}".repeat(20);
    let mut job = job(json!({"big": big}), &script);
    let error = interpolate(&mut job, &context()).expect_err("20 MiB");
    insta::assert_snapshot!(error, @"failed to interpolate job inputs in script: the inputs make the job too large");
}

proptest! {
    #[test]
    fn no_template_is_too_strange(text in r#"(\$\{\{ |\}\}|job|\.inputs|\.name|[\[\](){}"'\\!+*/%<>=&|,:.$ 0-9a-z]){0,40}"#) {
        drop(filled(&format!("${{{{ {text}")));
        drop(filled(&text));
    }

    #[test]
    fn text_without_templates_is_not_changed(text in "[^$]*") {
        prop_assert_eq!(filled(&text), Ok(text));
    }
}
