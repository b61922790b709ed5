//! Whole phrases: the values of masked variables.
//!
//! Every byte that belongs to an occurrence of any phrase is hidden. Occurrences that overlap are hidden by one
//! [`MASKED`], so a phrase inside a longer one, or two phrases that share bytes, never leave a rest behind.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::MASKED;

type NodeId = u32;
const ROOT: NodeId = 0;

/// An Aho-Corasick automaton that also knows the depth of each node, which is the number of bytes of the input's end
/// that may still become a phrase. That number is why this is not the `aho-corasick` crate: it does not tell it, and
/// holding back the length of the longest phrase instead would delay every log line.
pub(super) struct PhraseIndex {
    nodes: Vec<Node>,
    from_root: Box<[NodeId; 256]>,
}

#[derive(Default)]
struct Node {
    /// Most nodes have one child, which is kept inline.
    child: Option<(u8, NodeId)>,
    more_children: Vec<(u8, NodeId)>,
    fail: NodeId,
    depth: usize,
    /// Length of the longest phrase that ends at this node, or 0.
    ends: usize,
}

impl Node {
    fn child(&self, byte: u8) -> Option<NodeId> {
        let inline = self.child.iter();
        inline.chain(&self.more_children).find(|(edge, _)| *edge == byte).map(|(_, node)| *node)
    }

    fn add_child(&mut self, byte: u8, node: NodeId) {
        match self.child {
            None => self.child = Some((byte, node)),
            Some(_) => self.more_children.push((byte, node)),
        }
    }
}

impl PhraseIndex {
    pub(super) fn new<'a>(phrases: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut index = Self { nodes: vec![Node::default()], from_root: Box::new([ROOT; 256]) };
        for phrase in phrases {
            index.insert(phrase);
        }
        for byte in 0..=u8::MAX {
            index.from_root[usize::from(byte)] = index.nodes[0].child(byte).unwrap_or(ROOT);
        }
        index.link();
        index
    }

    fn insert(&mut self, phrase: &[u8]) {
        let mut at = ROOT;
        for (depth, &byte) in phrase.iter().enumerate() {
            at = match self.node(at).child(byte) {
                Some(next) => next,
                None => {
                    let next = NodeId::try_from(self.nodes.len())
                        .expect("a job's variables fit in memory many times");
                    self.nodes.push(Node { depth: depth + 1, ..Node::default() });
                    self.nodes[at as usize].add_child(byte, next);
                    next
                }
            };
        }
        let end = &mut self.nodes[at as usize];
        end.ends = end.depth;
    }

    /// Sets the failure links breadth first, so that a node's link is complete before its children need it.
    fn link(&mut self) {
        let mut queue: VecDeque<NodeId> = self.children(ROOT).into_iter().map(|(_, child)| child).collect();
        while let Some(parent) = queue.pop_front() {
            for (byte, child) in self.children(parent) {
                let fail = self.step(self.node(parent).fail, byte);
                let inherited = self.node(fail).ends;
                let node = &mut self.nodes[child as usize];
                node.fail = fail;
                node.ends = node.ends.max(inherited);
                queue.push_back(child);
            }
        }
    }

    fn children(&self, node: NodeId) -> Vec<(u8, NodeId)> {
        let node = self.node(node);
        node.child.iter().chain(&node.more_children).copied().collect()
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    fn step(&self, mut at: NodeId, byte: u8) -> NodeId {
        while at != ROOT {
            if let Some(next) = self.node(at).child(byte) {
                return next;
            }
            at = self.node(at).fail;
        }
        self.from_root[usize::from(byte)]
    }
}

/// A place in the automaton.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    at: NodeId,
}

impl Cursor {
    /// Goes through `input` until a phrase ends, and tells how many bytes that took.
    pub(super) fn advance_to_end_of_phrase(&mut self, index: &PhraseIndex, input: &[u8]) -> Option<usize> {
        let mut position = 0;
        while position < input.len() {
            if self.at == ROOT {
                // Plain text stays in this search: one table lookup for each byte.
                position +=
                    input[position..].iter().position(|&byte| index.from_root[usize::from(byte)] != ROOT)?;
            }
            self.at = index.step(self.at, input[position]);
            position += 1;
            if index.node(self.at).ends > 0 {
                return Some(position);
            }
        }
        None
    }
}

/// The state of one stream.
pub(super) struct PhraseFilter {
    index: Arc<PhraseIndex>,
    cursor: Cursor,
    held: Vec<u8>,
    /// Ranges of `held` that are hidden: disjoint, ascending.
    hits: Vec<Range<usize>>,
}

impl PhraseFilter {
    pub(super) fn new(index: Arc<PhraseIndex>) -> Self {
        Self { index, cursor: Cursor::default(), held: Vec::new(), hits: Vec::new() }
    }

    pub(super) fn write(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let scanned = self.held.len();
        self.held.extend_from_slice(input);
        self.scan(scanned);

        let undecided = self.held.len() - self.index.node(self.cursor.at).depth;
        // A hit that reaches into the undecided bytes may still grow, so it waits with them.
        let limit = match self.hits.last() {
            Some(hit) if hit.end > undecided => hit.start.min(undecided),
            _ => undecided,
        };
        self.release(limit, out);
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.release(self.held.len(), out);
        self.cursor = Cursor::default();
    }

    fn scan(&mut self, from: usize) {
        let mut position = from;
        while let Some(length) = self.cursor.advance_to_end_of_phrase(&self.index, &self.held[position..]) {
            position += length;
            let phrase = self.index.node(self.cursor.at).ends;
            self.hide(position - phrase..position);
        }
    }

    fn hide(&mut self, mut hit: Range<usize>) {
        while let Some(last) = self.hits.pop_if(|last| last.end > hit.start) {
            hit.start = hit.start.min(last.start);
        }
        self.hits.push(hit);
    }

    /// Emits `held[..limit]` with its hits replaced. No hit crosses `limit`.
    fn release(&mut self, limit: usize, out: &mut Vec<u8>) {
        let mut position = 0;
        let decided = self.hits.iter().take_while(|hit| hit.end <= limit).count();
        for hit in self.hits.drain(..decided) {
            out.extend_from_slice(&self.held[position..hit.start]);
            out.extend_from_slice(MASKED.as_bytes());
            position = hit.end;
        }
        out.extend_from_slice(&self.held[position..limit]);
        self.held.drain(..limit);
        for hit in &mut self.hits {
            *hit = hit.start - limit..hit.end - limit;
        }
    }
}
