//! Expressions, which are evaluated as they are read: nothing of them has to be kept, however long they are.
//!
//! The language is Moa, as GitLab documents it (`doc/ci/functions/moa.md`).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::text::Text;
use super::value::{Data, Value};

/// Brackets, operators before a value and templates in strings that may be within each other.
const MAX_DEPTH: usize = 64;

/// Words that are kept for the language's future.
const RESERVED: &[&str] = &[
    "array",
    "as",
    "break",
    "case",
    "const",
    "continue",
    "default",
    "else",
    "fallthrough",
    "float",
    "for",
    "func",
    "function",
    "goto",
    "if",
    "import",
    "in",
    "int",
    "let",
    "loop",
    "map",
    "namespace",
    "number",
    "object",
    "package",
    "range",
    "return",
    "string",
    "struct",
    "switch",
    "type",
    "var",
    "void",
    "while",
];

/// What is wrong, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault(pub(super) String);

impl Fault {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Evaluates the expressions of a job.
pub(super) struct Evaluation<'v> {
    /// What the name `job` stands for.
    job: &'v Value,
    /// Bytes that may still be made or compared.
    budget: usize,
    depth: usize,
    /// What is read has no effect: the other side of `&&` or `||` decided.
    skipping: bool,
}

impl<'v> Evaluation<'v> {
    /// `budget` is in bytes, for all expressions together.
    pub(super) fn new(job: &'v Value, budget: usize) -> Self {
        Self { job, budget, depth: 0, skipping: false }
    }

    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Fault> {
        self.budget =
            self.budget.checked_sub(bytes).ok_or_else(|| Fault::new("the inputs make the job too large"))?;
        Ok(())
    }

    pub(super) fn write(&mut self, value: &Value, out: &mut String) -> Result<(), Fault> {
        self.charge(value.size)?;
        value.write(out);
        Ok(())
    }

    /// An expression up to its `}}`, after the `${{`.
    pub(super) fn delimited(&mut self, text: &mut Text<'_>) -> Result<Value, Fault> {
        let value = self.expression(text)?;
        text.skip_space();
        if text.take("}}") {
            return Ok(value);
        }
        Err(Fault::new(format!("expected an operator or `}}}}`, found {}", text.found())))
    }

    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::new(format!("more than {MAX_DEPTH} brackets within each other")));
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self, text: &mut Text<'_>) -> Result<Value, Fault> {
        self.deeper(|evaluation| evaluation.or(text))
    }

    fn or(&mut self, text: &mut Text<'_>) -> Result<Value, Fault> {
        self.logic(
            text,
            "||",
            |evaluation, text| evaluation.logic(text, "&&", Self::comparison, |left| !left.is_truthy()),
            Value::is_truthy,
        )
    }

    /// Operands of which the first that `decides` is the result, else the last.
    fn logic(
        &mut self,
        text: &mut Text<'_>,
        operator: &str,
        operand: impl Fn(&mut Self, &mut Text<'_>) -> Result<Value, Fault>,
        decides: impl Fn(&Value) -> bool,
    ) -> Result<Value, Fault> {
        let mut left = operand(self, text)?;
        loop {
            text.skip_space();
            if !text.take(operator) {
                return Ok(left);
            }
            let decided = decides(&left);
            let before = self.skipping;
            self.skipping |= decided;
            let right = operand(self, text);
            self.skipping = before;
            let right = right?;
            // Which operand it is tells of the left one.
            left = if decided { left } else { right.marked_like(&left) };
        }
    }

    fn comparison(&mut self, text: &mut Text<'_>) -> Result<Value, Fault> {
        type Holds = fn(Ordering) -> bool;
        const OPERATORS: [(&str, Holds); 6] = [
            ("==", Ordering::is_eq),
            ("!=", Ordering::is_ne),
            ("<=", Ordering::is_le),
            (">=", Ordering::is_ge),
            ("<", Ordering::is_lt),
            (">", Ordering::is_gt),
        ];
        let mut left = self.sum(text)?;
        loop {
            text.skip_space();
            let Some((_, holds)) = OPERATORS.iter().find(|(operator, _)| text.take(operator)) else {
                return Ok(left);
            };
            let right = self.sum(text)?;
            self.charge(left.size.min(right.size))?;
            left = Value::bool(holds(left.compare(&right))).marked_like(&left).marked_like(&right);
        }
    }

    fn sum(&mut self, text: &mut Text<'_>) -> Result<Value, Fault> {
        let mut left = self.product(text)?;
        loop {
            text.skip_space();
            let Some(operator @ ('+' | '-')) = text.rest().chars().next() else { return Ok(left) };
            text.take_char();
            let right = self.product(text)?;
            left = self.arithmetic(operator, &left, &right)?;
        }
    }

    fn product(&mut self, text: &mut Text<'_>) -> Result<Value, Fault> {
        let mut left = self.unary(text)?;
        loop {
            text.skip_space();
            let Some(operator @ ('*' | '/' | '%')) = text.rest().chars().next() else { return Ok(left) };
            text.take_char();
            let right = self.unary(text)?;
            left = self.arithmetic(operator, &left, &right)?;
        }
    }

    fn arithmetic(&mut self, operator: char, left: &Value, right: &Value) -> Result<Value, Fault> {
        if self.skipping {
            return Ok(Value::null());
        }
        let result = match (&left.data, &right.data) {
            (Data::Text(one), Data::Text(two)) if operator == '+' => {
                self.charge(one.len().saturating_add(two.len()))?;
                Value::text(&format!("{one}{two}"))
            }
            (Data::Number(_), Data::Number(two)) if matches!(operator, '/' | '%') && *two == 0.0 => {
                return Err(Fault::new("division by zero"));
            }
            (Data::Number(one), Data::Number(two)) => number(match operator {
                '+' => one + two,
                '-' => one - two,
                '*' => one * two,
                '/' => one / two,
                _ => one % two,
            })?,
            _ => {
                let (left, right) = (left.kind(), right.kind());
                let help = if operator == '+' { "; `str(...)` makes a string of any value" } else { "" };
                return Err(Fault::new(format!("`{operator}` is not for {left} and {right}{help}")));
            }
        };
        Ok(result.marked_like(left).marked_like(right))
    }

    fn unary(&mut self, text: &mut Text<'_>) -> Result<Value, Fault> {
        text.skip_space();
        let Some(operator @ ('+' | '-' | '!')) = text.rest().chars().next() else {
            return self.postfix(text);
        };
        text.take_char();
        let value = self.deeper(|evaluation| evaluation.unary(text))?;
        let result = match (&value.data, operator) {
            _ if self.skipping => Value::null(),
            (_, '!') => Value::bool(!value.is_truthy()),
            (Data::Number(amount), _) => number(if operator == '-' { -amount } else { *amount })?,
            _ => return Err(Fault::new(format!("`{operator}` is not for {}", value.kind()))),
        };
        Ok(result.marked_like(&value))
    }

    fn postfix(&mut self, text: &mut Text<'_>) -> Result<Value, Fault> {
        let mut value = self.primary(text)?;
        loop {
            text.skip_space();
            if text.take(".") {
                text.skip_space();
                let Some(name) = text.word() else {
                    return Err(Fault::new(format!("expected a name after `.`, found {}", text.found())));
                };
                value = self.property(&value, &Value::text(name))?;
            } else if text.take("[") {
                let key = self.expression(text)?;
                expect(text, "]")?;
                value = self.property(&value, &key)?;
            } else if text.rest().starts_with('(') {
                return Err(Fault::new("only `str`, `num` and `bool` can be called"));
            } else {
                return Ok(value);
            }
        }
    }

    fn property(&self, value: &Value, key: &Value) -> Result<Value, Fault> {
        if self.skipping {
            return Ok(Value::null());
        }
        let found = match (&value.data, &key.data) {
            (Data::Object(properties), Data::Text(name)) => {
                properties.get(&**name).ok_or_else(|| missing(name, properties))?
            }
            (Data::Array(elements), Data::Number(number)) => {
                // What is no index is written with a sign, a point or more digits than an index has.
                let index = number.to_string().parse::<usize>().ok();
                index.and_then(|index| elements.get(index)).ok_or_else(|| {
                    Fault::new(format!("there is no [{number}] in an array of {}", elements.len()))
                })?
            }
            _ => return Err(Fault::new(format!("{} has no property of a {}", value.kind(), key.kind()))),
        };
        Ok(found.clone().taken_from(value).marked_like(key))
    }

    fn primary(&mut self, text: &mut Text<'_>) -> Result<Value, Fault> {
        text.skip_space();
        match text.rest().chars().next() {
            Some('0'..='9') => text.number(),
            Some('"') => {
                text.take_char();
                self.deeper(|evaluation| text.string(evaluation))
            }
            Some('\'') => {
                text.take_char();
                text.raw_string()
            }
            Some('(') => {
                text.take_char();
                let value = self.expression(text)?;
                expect(text, ")")?;
                Ok(value)
            }
            Some('[') => {
                text.take_char();
                let mut elements = Vec::new();
                while !close(text, "]") {
                    elements.push(self.expression(text)?);
                    separate(text, "]")?;
                }
                Ok(Value::array(elements))
            }
            Some('{') => {
                text.take_char();
                self.object(text)
            }
            _ => match text.word() {
                Some(word) => self.named(word, text),
                None => Err(Fault::new(format!("expected a value, found {}", text.found()))),
            },
        }
    }

    fn object(&mut self, text: &mut Text<'_>) -> Result<Value, Fault> {
        let mut properties = BTreeMap::new();
        while !close(text, "}") {
            let key = match text.word() {
                Some(word) => Value::text(word),
                None => self.expression(text)?,
            };
            expect(text, ":")?;
            let value = self.expression(text)?.marked_like(&key);
            match &key.data {
                Data::Text(name) => {
                    self.charge(name.len())?;
                    properties.insert(name.to_string(), value);
                }
                _ if self.skipping => {}
                _ => return Err(Fault::new(format!("a key must be a string, not a {}", key.kind()))),
            }
            separate(text, "}")?;
        }
        Ok(Value::object(properties))
    }

    /// What a word stands for.
    fn named(&mut self, word: &str, text: &mut Text<'_>) -> Result<Value, Fault> {
        match word {
            "null" => return Ok(Value::null()),
            "true" | "false" => return Ok(Value::bool(word == "true")),
            _ if RESERVED.contains(&word) => {
                return Err(Fault::new(format!("`{word}` is a reserved word")));
            }
            _ => {}
        }
        text.skip_space();
        if text.take("(") {
            let argument = self.expression(text)?;
            expect(text, ")")?;
            return self.call(word, &argument);
        }
        if word == "job" {
            return Ok(self.job.clone());
        }
        if self.skipping {
            return Ok(Value::null());
        }
        Err(Fault::new(format!(
            "there is no `{word}`; inputs are `job.inputs.NAME`, or `job.inputs[\"NAME\"]` for names with hyphens"
        )))
    }

    fn call(&mut self, function: &str, argument: &Value) -> Result<Value, Fault> {
        let result = match (function, &argument.data) {
            ("bool", _) => Value::bool(argument.is_truthy()),
            ("str", _) => {
                let mut text = String::new();
                self.write(argument, &mut text)?;
                Value::text(&text)
            }
            ("num", _) if self.skipping => Value::null(),
            ("num", Data::Number(_)) => argument.clone(),
            ("num", Data::Text(text)) => {
                let number = text.trim().parse().ok().and_then(Value::number);
                number.ok_or_else(|| Fault::new("`num` got a string that is no number"))?
            }
            ("num", _) => return Err(Fault::new(format!("`num` is not for {}", argument.kind()))),
            _ => {
                return Err(Fault::new(format!(
                    "there is no function `{function}`; there are `str`, `num` and `bool`"
                )));
            }
        };
        Ok(result.marked_like(argument))
    }
}

fn number(value: f64) -> Result<Value, Fault> {
    Value::number(value).ok_or_else(|| Fault::new("a number becomes too large"))
}

fn missing(name: &str, properties: &BTreeMap<String, Value>) -> Fault {
    let names: Vec<&str> = properties.keys().take(20).map(String::as_str).collect();
    Fault::new(format!("there is no `{name}`; there is {}", names.join(", ")))
}

fn expect(text: &mut Text<'_>, token: &str) -> Result<(), Fault> {
    text.skip_space();
    if text.take(token) {
        Ok(())
    } else {
        Err(Fault::new(format!("expected `{token}`, found {}", text.found())))
    }
}

/// Whether a list ends here.
fn close(text: &mut Text<'_>, end: &str) -> bool {
    text.skip_space();
    text.take(end)
}

/// A comma, or the end, which is left.
fn separate(text: &mut Text<'_>, end: &str) -> Result<(), Fault> {
    text.skip_space();
    if text.take(",") || text.rest().starts_with(end) {
        return Ok(());
    }
    Err(Fault::new(format!("expected `,` or `{end}`, found {}", text.found())))
}
