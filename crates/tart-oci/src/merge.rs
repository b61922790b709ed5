//! The layers of an image applied to an empty tree. Pure.
//!
//! Layers are applied as containerd does: whiteouts and opaque directories remove what lower layers have, a directory
//! over a directory changes its metadata only, anything else replaces what was there, and a parent that is a symbolic
//! link is followed, but never out of the image.

use std::collections::{BTreeMap, HashSet};

use crate::{
    error::{LayerError, text},
    index::{Indexed, LayerIndex, normalized},
    limits::Limits,
    read::{Kind, Metadata},
};

/// Most symbolic links on the way to one file, as in Linux.
const MAX_LINKS: usize = 40;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A file that has one or more names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inode {
    /// Never a hard link.
    pub(crate) kind: Kind,
    pub(crate) metadata: Metadata,
    pub(crate) size: u64,
    /// Layer and entry that have the content of a regular file.
    pub(crate) at: (usize, u32),
}

/// What is left of all layers, and where its content is.
#[derive(Debug, Default)]
pub struct Plan {
    /// Paths and the numbers of their inodes; parents come before what is in them.
    pub(crate) tree: BTreeMap<Box<[u8]>, usize>,
    pub(crate) inodes: Vec<Inode>,
    /// Names of the layers, for messages.
    pub(crate) layers: Vec<String>,
    /// What the layers were read with.
    pub(crate) limits: Limits,
    /// How many files and directories were made, also those that are gone again.
    made: u64,
    /// Bytes of their paths.
    made_text: u64,
    /// Steps taken on paths. Links can make each path thousands of steps long.
    steps: std::cell::Cell<u64>,
}

/// Applies layers, the image's base first.
///
/// # Errors
/// If all of them together are too large, or an entry makes no sense where it is.
pub fn merge(mut indexes: Vec<LayerIndex>, limits: &Limits) -> Result<Plan, LayerError> {
    indexes.sort_by_key(|index| index.position);
    let sum = |of: fn(&LayerIndex) -> u64| indexes.iter().map(of).fold(0, u64::saturating_add);
    for (what, is, most) in [
        ("bytes", sum(|index| index.bytes), limits.total_bytes),
        ("entries", sum(|index| index.entries.len() as u64), limits.entries),
        ("bytes of paths", sum(|index| index.text_bytes), limits.text_bytes),
    ] {
        if is > most {
            let problem = format!("its layers have {is} {what}, more than {most}");
            return Err(LayerError::image("the image", problem));
        }
    }
    let mut plan = Plan { limits: limits.clone(), ..Plan::default() };
    plan.tree.insert(Box::default(), 0);
    plan.inodes.push(implied_directory());
    for (position, index) in indexes.into_iter().enumerate() {
        plan.layers.push(index.layer.clone());
        plan.apply(position, index, limits)?;
    }
    Ok(plan)
}

/// A directory that no layer describes.
fn implied_directory() -> Inode {
    let metadata = Metadata { mode: 0o755, ..Metadata::default() };
    Inode { kind: Kind::Directory, metadata, size: 0, at: (0, 0) }
}

impl Plan {
    fn apply(&mut self, layer: usize, index: LayerIndex, limits: &Limits) -> Result<(), LayerError> {
        let name = index.layer;
        let (marks, entries): (Vec<_>, Vec<_>) =
            index.entries.into_iter().partition(|entry| is_mark(&entry.path));
        let directories: HashSet<&[u8]> =
            entries.iter().filter(|entry| entry.kind == Kind::Directory).map(|entry| &*entry.path).collect();
        // Marks are about lower layers, whatever their place in this one.
        for mark in marks {
            let inside = split(&mark.path).0;
            if self
                .replaces_link(inside, &directories, limits)
                .map_err(|problem| LayerError::layer(&name, problem))?
            {
                continue;
            }
            self.erase(&mark.path, limits).map_err(|problem| LayerError::layer(&name, problem))?;
        }
        for entry in entries {
            self.put(layer, entry, limits).map_err(|problem| LayerError::layer(&name, problem))?;
        }
        Ok(())
    }

    /// Whether a layer that has `directories` puts one in the place of a symbolic link on the way to `path`. Marks in
    /// it are about that new directory, and not about what the link meant.
    fn replaces_link(
        &self,
        path: &[u8],
        directories: &HashSet<&[u8]>,
        limits: &Limits,
    ) -> Result<bool, String> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let prefix = path.get(..end).unwrap_or_default();
            if !directories.contains(prefix) {
                continue;
            }
            let (parent, name) = split(prefix);
            let Some(parent) = self.existing(parent, limits)? else { return Ok(false) };
            let found =
                self.tree.get(join(&parent, name).as_slice()).and_then(|number| self.inodes.get(*number));
            if found.is_some_and(|inode| matches!(inode.kind, Kind::Symlink(_))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Does what a whiteout or an opaque mark says.
    fn erase(&mut self, path: &[u8], limits: &Limits) -> Result<(), String> {
        let (parent, name) = split(path);
        // A mark in a directory that is not there removes nothing.
        let Some(parent) = self.existing(parent, limits)? else { return Ok(()) };
        if name == OPAQUE {
            self.remove_below(&parent);
            return Ok(());
        }
        match name.strip_prefix(WHITEOUT) {
            Some(b"" | b"." | b"..") | None => Err(format!("`{}` is no whiteout", text(path))),
            Some(hidden) => {
                self.remove(&join(&parent, hidden));
                Ok(())
            }
        }
    }

    fn put(&mut self, layer: usize, entry: Indexed, limits: &Limits) -> Result<(), String> {
        let (parent, name) = split(&entry.path);
        let parent = self.directory(parent, limits)?;
        let path = if entry.path.is_empty() { Vec::new() } else { join(&parent, name) };
        let inode = match entry.kind {
            Kind::HardLink(target) => {
                let inode = self.target(&entry.path, &target, limits)?;
                if self.tree.get(path.as_slice()) != Some(&inode) {
                    self.remove(&path);
                    self.insert(&path, inode, limits)?;
                }
                return Ok(());
            }
            kind => Inode { kind, metadata: entry.metadata, size: entry.size, at: (layer, entry.ordinal) },
        };
        let is_directory = inode.kind == Kind::Directory;
        if path.is_empty() && !is_directory {
            return Err("its root is no directory".to_owned());
        }
        if is_directory
            && let Some(old) = self.tree.get(path.as_slice()).and_then(|number| self.inodes.get_mut(*number))
            && old.kind == Kind::Directory
        {
            *old = inode;
            return Ok(());
        }
        self.remove(&path);
        self.add(&path, inode, limits)
    }

    /// The inode that a hard link means.
    fn target(&mut self, path: &[u8], target: &[u8], limits: &Limits) -> Result<usize, String> {
        let missing =
            || format!("the hard link `{}` is to `{}`, which is not there", text(path), text(target));
        let Ok(Some(normal)) = normalized(target, limits) else { return Err(missing()) };
        let (parent, name) = split(&normal);
        let parent = self.existing(parent, limits)?.ok_or_else(missing)?;
        let number = *self.tree.get(join(&parent, name).as_slice()).ok_or_else(missing)?;
        match self.inodes.get(number) {
            Some(inode) if inode.kind != Kind::Directory => Ok(number),
            _ => Err(format!("the hard link `{}` is to the directory `{}`", text(path), text(target))),
        }
    }

    /// The real path of a directory, if it is one.
    fn existing(&self, path: &[u8], limits: &Limits) -> Result<Option<Vec<u8>>, String> {
        let (real, missing) = self.resolve(path, limits)?;
        Ok(missing.is_empty().then_some(real))
    }

    /// The real path of a directory, which is made if it is not there.
    fn directory(&mut self, path: &[u8], limits: &Limits) -> Result<Vec<u8>, String> {
        let (mut real, missing) = self.resolve(path, limits)?;
        for name in missing {
            real = join(&real, &name);
            self.remove(&real);
            self.add(&real, implied_directory(), limits)?;
        }
        Ok(real)
    }

    /// Follows a path as far as there are directories. Symbolic links on it lead to places inside the image only.
    fn resolve(&self, path: &[u8], limits: &Limits) -> Result<(Vec<u8>, Vec<Vec<u8>>), String> {
        let mut rest: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let mut real = Vec::new();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            self.steps.set(self.steps.get() + 1);
            if self.steps.get() > limits.steps {
                let most = limits.steps;
                return Err(format!("its paths take more than {most} steps through links and directories"));
            }
            if name == b".." {
                real = split(&real).0.to_vec();
                continue;
            }
            let next = join(&real, &name);
            let found = self.tree.get(next.as_slice()).and_then(|number| self.inodes.get(*number));
            match found.map(|inode| &inode.kind) {
                Some(Kind::Directory) => real = next,
                Some(Kind::Symlink(target)) => {
                    links += 1;
                    if links > MAX_LINKS || rest.len() > limits.depth {
                        return Err(format!("too many symbolic links on the way to `{}`", text(path)));
                    }
                    if target.starts_with(b"/") {
                        real.clear();
                    }
                    rest.extend(components(target).rev().map(<[u8]>::to_vec));
                }
                _ => {
                    let mut missing = vec![name];
                    while let Some(name) = rest.pop() {
                        if name == b".." {
                            missing.pop();
                        } else {
                            missing.push(name);
                        }
                    }
                    return Ok((real, missing));
                }
            }
        }
        Ok((real, Vec::new()))
    }

    fn add(&mut self, path: &[u8], inode: Inode, limits: &Limits) -> Result<(), String> {
        self.insert(path, self.inodes.len(), limits)?;
        self.inodes.push(inode);
        Ok(())
    }

    /// Gives a file a name. A short entry may make many directories, and lead by links to a path that is much longer
    /// than its own, so what entries may have is checked again for what they make.
    fn insert(&mut self, path: &[u8], number: usize, limits: &Limits) -> Result<(), String> {
        if path.len() > limits.path_bytes {
            return Err(format!(
                "`{}` is longer than {} bytes, by way of links",
                text(path),
                limits.path_bytes
            ));
        }
        if components(path).count() > limits.depth {
            return Err(format!(
                "`{}` is deeper than {} directories, by way of links",
                text(path),
                limits.depth
            ));
        }
        self.made += 1;
        self.made_text = self.made_text.saturating_add(path.len() as u64);
        let around = "with the directories around them";
        if self.made > limits.entries {
            return Err(format!("its files need more than {} entries, {around}", limits.entries));
        }
        if self.made_text > limits.text_bytes {
            return Err(format!("its paths take more than {} bytes, {around}", limits.text_bytes));
        }
        self.tree.insert(path.into(), number);
        Ok(())
    }

    /// Removes a path with all that is in it.
    fn remove(&mut self, path: &[u8]) {
        if let Some(number) = self.tree.remove(path)
            && self.inodes.get(number).is_some_and(|inode| inode.kind == Kind::Directory)
        {
            self.remove_below(path);
        }
    }

    fn remove_below(&mut self, directory: &[u8]) {
        if directory.is_empty() {
            self.tree.retain(|path, _| path.is_empty());
            return;
        }
        // What is in it begins with its path and a slash; `0` is the byte after the slash.
        let (start, end) = ([directory, b"/"].concat(), [directory, b"0"].concat());
        let inside: Vec<_> = self
            .tree
            .range::<[u8], _>((std::ops::Bound::Included(&*start), std::ops::Bound::Excluded(&*end)))
            .map(|(path, _)| path.clone())
            .collect();
        for path in inside {
            self.tree.remove(&path);
        }
    }
}

/// Whether an entry is about lower layers.
fn is_mark(path: &[u8]) -> bool {
    split(path).1.starts_with(WHITEOUT)
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !matches!(*component, b"" | b"."))
}

/// Parent and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

#[cfg(test)]
mod tests;
