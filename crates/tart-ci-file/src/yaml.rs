//! From text to nodes: anchors and aliases, merge keys, `!reference`, and bounds on all of them.

use std::{collections::HashMap, sync::Arc};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::{
    error::{Error, Location, Result},
    node::{Budget, Map, Node, Value},
    scalar,
};

/// The largest file, in bytes.
pub(crate) const MAX_FILE_SIZE: usize = 1 << 20;
/// How deep values may nest.
const MAX_DEPTH: usize = 64;

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Document {
    /// The last document's content.
    pub(crate) root: Node,
    /// Where a header document with `spec:` is, if there is one.
    pub(crate) spec: Option<Location>,
    /// Keys that are given twice.
    pub(crate) warnings: Vec<String>,
}

/// Parses a file. A first document may be a header with `spec:`.
pub(crate) fn parse(file: &str, text: &str, budget: &mut Budget) -> Result<Document> {
    let start = Location { file: file.into(), line: 1 };
    if text.len() > MAX_FILE_SIZE {
        return Err(Error::invalid(&start, format!("the file is larger than {} KiB", MAX_FILE_SIZE / 1024)));
    }
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        file: Arc::clone(&start.file),
        anchors: HashMap::new(),
        budget,
        warnings: Vec::new(),
    };
    let mut documents = Vec::new();
    loop {
        let (event, at) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(_) => {
                let (event, at) = reader.next()?;
                documents.push(reader.node(event, at, 0)?);
            }
            Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
            _ => return Err(Error::invalid(&at, "the file is not valid YAML")),
        }
    }
    let warnings = reader.warnings;
    let spec = documents.first().and_then(|first| first.as_map()?.get("spec").map(|spec| spec.at.clone()));
    if documents.len() > if spec.is_some() { 2 } else { 1 } {
        let at = documents.get(1).map_or(&start, |second| &second.at);
        return Err(Error::invalid(at, "a CI file is one YAML document: remove the `---` in its middle"));
    }
    let root = documents.pop().unwrap_or(Node { at: start, value: Value::Null });
    Ok(Document { root, spec, warnings })
}

struct Reader<'text, 'budget> {
    parser: Parser<'text, saphyr_parser::StrInput<'text>>,
    file: Arc<str>,
    /// Finished anchored nodes by their number. An alias inside of its own anchor finds nothing here.
    anchors: HashMap<usize, Node>,
    budget: &'budget mut Budget,
    warnings: Vec<String>,
}

impl<'text> Reader<'text, '_> {
    fn next(&mut self) -> Result<(Event<'text>, Location)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.locate(span))),
            Some(Err(error)) => {
                let at = Location { file: Arc::clone(&self.file), line: error.marker().line().max(1) };
                Err(Error::invalid(&at, format!("the file is not valid YAML: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, Location { file: Arc::clone(&self.file), line: 1 })),
        }
    }

    fn locate(&self, span: Span) -> Location {
        Location { file: Arc::clone(&self.file), line: span.start.line().max(1) }
    }

    /// Reads the node that begins with `event`.
    fn node(&mut self, event: Event<'text>, at: Location, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(&at, format!("values are nested more than {MAX_DEPTH} levels deep")));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.budget.charge_amount(&at, 1, text.len())?;
                let value = scalar_value(&at, &text, style, tag.as_deref())?;
                (Node::new(at, value), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.budget.charge_amount(&at, 1, 0)?;
                let items = self.list(depth)?;
                let value = match tag.as_deref().map(kind_of) {
                    None | Some(TagKind::Core("seq")) => Value::List(items),
                    Some(TagKind::Reference) => Value::Reference(reference_path(&at, &items)?),
                    Some(_) => return Err(unknown_tag(&at, tag.as_deref())),
                };
                (Node::new(at, value), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.budget.charge_amount(&at, 1, 0)?;
                if !matches!(tag.as_deref().map(kind_of), None | Some(TagKind::Core("map"))) {
                    return Err(unknown_tag(&at, tag.as_deref()));
                }
                let map = self.map(depth)?;
                (Node::new(at, Value::Map(map)), anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Error::invalid(
                        &at,
                        "an alias (`*name`) cannot stand inside of its own anchor",
                    ));
                };
                self.budget.charge(&at, node)?;
                return Ok(node.clone());
            }
            _ => return Err(Error::invalid(&at, "the file is not valid YAML")),
        };
        if anchor != 0 {
            self.budget.charge(&node.at, &node)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(items);
            }
            items.push(self.node(event, at, depth + 1)?);
        }
    }

    /// Reads a map. As in Psych, `<<` takes effect where it stands: it replaces keys before it, and keys after it
    /// replace its own. The last of two equal keys wins.
    fn map(&mut self, depth: usize) -> Result<Map> {
        let mut map = Map::new();
        // Keys written in this map itself, to tell repetitions from replaced merged keys.
        let mut own: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(map);
            }
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node(event, at.clone(), depth + 1)?;
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at, depth + 1)?;
            if merge {
                merge_into(&mut map, value)?;
                continue;
            }
            let Some(name) = key.scalar() else {
                return Err(key.error(format!("a key must be a string, not {}", key.kind())));
            };
            if let Some(line) = own.insert(name.clone(), at.line) {
                self.warnings.push(format!("{at}: `{name}` is given twice; this one wins over line {line}"));
            }
            map.insert(name, value);
        }
    }
}

/// Merges the value of `<<`, a map or a list of maps, of which the first wins.
fn merge_into(map: &mut Map, value: Node) -> Result<()> {
    match value.value {
        Value::Map(merged) => map.extend(merged),
        Value::List(items) => {
            for item in items.into_iter().rev() {
                match item.value {
                    Value::Map(merged) => map.extend(merged),
                    _ => return Err(item.error(format!("`<<` merges maps, not {}", item.kind()))),
                }
            }
        }
        _ => return Err(value.error(format!("`<<` merges maps, not {}", value.kind()))),
    }
    Ok(())
}

enum TagKind<'a> {
    Core(&'a str),
    Reference,
    Other,
}

fn kind_of(tag: &Tag) -> TagKind<'_> {
    if tag.is_yaml_core_schema() {
        TagKind::Core(&tag.suffix)
    } else if tag.handle == "!" && tag.suffix == "reference" {
        TagKind::Reference
    } else {
        TagKind::Other
    }
}

fn unknown_tag(at: &Location, tag: Option<&Tag>) -> Error {
    let name = tag.map(|tag| format!("{}{}", tag.handle, tag.suffix)).unwrap_or_default();
    Error::invalid(at, format!("the tag `{name}` is not known here; GitLab knows `!reference [job, key]`"))
}

fn scalar_value(at: &Location, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value> {
    match tag.map(kind_of) {
        None if style == ScalarStyle::Plain => Ok(scalar::plain(text)),
        None | Some(TagKind::Core("str")) => Ok(Value::Text(text.to_owned())),
        Some(TagKind::Core("int" | "float" | "bool" | "null")) => Ok(scalar::plain(text)),
        // `!` alone marks a string.
        Some(TagKind::Other) if tag.is_some_and(|tag| tag.suffix.is_empty()) => {
            Ok(Value::Text(text.to_owned()))
        }
        Some(_) => Err(unknown_tag(at, tag)),
    }
}

fn reference_path(at: &Location, items: &[Node]) -> Result<Vec<String>> {
    let path: Option<Vec<String>> = items.iter().map(Node::scalar).collect();
    match path {
        Some(path) if !path.is_empty() && path.iter().all(|name| !name.is_empty()) => Ok(path),
        _ => Err(Error::invalid(
            at,
            "`!reference` takes a list of names, such as `!reference [.setup, script]`",
        )),
    }
}
