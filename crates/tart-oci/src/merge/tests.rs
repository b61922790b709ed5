use std::{collections::BTreeMap, io::Read, sync::Arc};

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::*;
use crate::{Layer, LayerSource, index};

struct Bytes(Vec<u8>);

impl LayerSource for Bytes {
    fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(std::io::Cursor::new(self.0.clone())))
    }
}

/// An entry of a test layer: what kind, where, and content or target.
type Raw<'a> = (char, &'a str, &'a str);

fn tar(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, path, rest) in entries {
        let mut header = Header::new_gnu();
        header.set_mode(if *kind == 'd' { 0o750 } else { 0o640 });
        header.set_uid(7);
        header.set_entry_type(match kind {
            'd' => EntryType::Directory,
            'l' => EntryType::Symlink,
            'h' => EntryType::Link,
            'c' => EntryType::Char,
            _ => EntryType::Regular,
        });
        // Test paths may be such that the library refuses them.
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        let content = if matches!(kind, 'l' | 'h') {
            old.linkname[..rest.len()].copy_from_slice(rest.as_bytes());
            ""
        } else {
            rest
        };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn layer(bytes: Vec<u8>) -> Layer {
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    let size = bytes.len() as u64;
    Layer::unnamed(Arc::new(Bytes(bytes)), "sha256:0123456789abcdef", size, &diff_id).unwrap()
}

fn merged(layers: &[&[Raw<'_>]]) -> Result<(Plan, Vec<Layer>), LayerError> {
    let limits = Limits::default();
    let layers: Vec<_> = layers.iter().map(|entries| layer(tar(entries))).collect();
    let indexes = layers.iter().enumerate().map(|(position, layer)| index(layer, position, &limits));
    let plan = merge(indexes.collect::<Result<_, _>>()?, &limits)?;
    Ok((plan, layers))
}

/// The archive that is written: kind, content or target, by path.
fn written(plan: &Plan, layers: &[Layer]) -> BTreeMap<String, (char, String)> {
    let mut archive = Vec::new();
    let summary = plan.write(layers, &mut archive).unwrap();
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(&*archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned();
        let target = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
        let kind = match entry.header().entry_type() {
            EntryType::Directory => 'd',
            EntryType::Symlink => 'l',
            EntryType::Link => 'h',
            EntryType::Char => 'c',
            _ => 'f',
        };
        let mut content = target.unwrap_or_default();
        if kind == 'f' {
            entry.read_to_string(&mut content).unwrap();
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            assert!(files.contains_key(parent), "{path} comes before its parent");
        }
        if kind == 'h' {
            assert!(files.contains_key(&content), "{path} comes before what it links to");
        }
        assert_eq!(files.insert(path.clone(), (kind, content)), None, "{path} is there twice");
    }
    assert_eq!(summary.entries, files.len() as u64);
    files
}

fn shown(layers: &[&[Raw<'_>]]) -> String {
    let (plan, layers) = match merged(layers) {
        Ok(merged) => merged,
        Err(error) => return error.to_string(),
    };
    let files = written(&plan, &layers).into_iter().filter(|(path, _)| path != ".");
    let lines: Vec<_> = files.map(|(path, (kind, rest))| format!("{kind} {path} {rest}")).collect();
    lines.join("\n")
}

#[test]
fn a_whiteout_removes_what_lower_layers_have() {
    let base = [('d', "a", ""), ('f', "a/1", "one"), ('f', "a/2", "two"), ('d', "b", ""), ('f', "b/1", "x")];
    insta::assert_snapshot!(shown(&[&base, &[('f', "a/.wh.1", ""), ('f', ".wh.b", ""), ('f', ".wh.none", "")]]), @"
    d a 
    f a/2 two
    ");
}

#[test]
fn a_whiteout_does_not_remove_what_its_own_layer_has() {
    let base = [('f', "a/1", "lower")];
    insta::assert_snapshot!(shown(&[&base, &[('f', "a/1", "upper"), ('f', "a/.wh.1", "")]]), @"
    d a 
    f a/1 upper
    ");
}

#[test]
fn an_opaque_directory_hides_lower_layers_whatever_its_place() {
    let base = [('f', "a/1", "x"), ('f', "a/b/2", "x"), ('f', "ab", "stays")];
    insta::assert_snapshot!(shown(&[&base, &[('f', "a/3", "new"), ('f', "a/.wh..wh..opq", "")]]), @"
    d a 
    f a/3 new
    f ab stays
    ");
    insta::assert_snapshot!(shown(&[&base, &[('f', ".wh..wh..opq", ""), ('f', "x", "new")]]), @"f x new");
}

#[test]
fn files_and_directories_replace_each_other() {
    let base = [('f', "a", "file"), ('f', "b/1", "x"), ('f', "b/2", "x")];
    insta::assert_snapshot!(shown(&[&base, &[('d', "a", ""), ('f', "a/1", "in it"), ('f', "b", "file")]]), @"
    d a 
    f a/1 in it
    f b file
    ");
}

#[test]
fn the_last_of_several_entries_counts() {
    insta::assert_snapshot!(shown(&[&[('f', "./a//b", "first"), ('f', "/a/b", "last"), ('d', "a", "")]]), @"
    d a 
    f a/b last
    ");
}

#[test]
fn links_on_the_way_are_followed_inside_the_image() {
    let base = [
        ('d', "usr/bin", ""),
        ('l', "bin", "usr/bin"),
        ('l', "usr/out", "../../../../etc"),
        ('l', "abs", "/usr"),
    ];
    let top = [
        ('f', "bin/sh", "shell"),
        ('f', "usr/out/passwd", "inside"),
        ('f', "abs/x", "y"),
        ('f', "bin/.wh.none", ""),
    ];
    insta::assert_snapshot!(shown(&[&base, &top]), @"
    l abs /usr
    l bin usr/bin
    d etc 
    f etc/passwd inside
    d usr 
    d usr/bin 
    f usr/bin/sh shell
    l usr/out ../../../../etc
    f usr/x y
    ");
}

#[test]
fn a_link_to_itself_is_an_error() {
    insta::assert_snapshot!(shown(&[&[('l', "a", "b"), ('l', "b", "a"), ('f', "a/x", "")]]), @"layer 0123456789ab: too many symbolic links on the way to `a`");
}

#[test]
fn hard_links_keep_the_content_when_their_target_goes() {
    let base = [('f', "a", "content"), ('h', "b", "a"), ('h', "dir/c", "./a")];
    insta::assert_snapshot!(shown(&[&base]), @"
    f a content
    h b a
    d dir 
    h dir/c a
    ");
    insta::assert_snapshot!(shown(&[&base, &[('f', ".wh.a", ""), ('f', "b", "new")]]), @"
    f b new
    d dir 
    f dir/c content
    ");
    insta::assert_snapshot!(shown(&[&base, &[('h', "d", "dir/c"), ('f', ".wh.dir", ""), ('h', "a", "b")]]), @"layer 0123456789ab: the hard link `d` is to `dir/c`, which is not there");
}

#[test]
fn hard_links_to_nothing_outside_or_directories_are_errors() {
    insta::assert_snapshot!(shown(&[&[('h', "a", "../../etc/shadow")]]), @"layer 0123456789ab: the hard link `a` is to `../../etc/shadow`, which is not there");
    insta::assert_snapshot!(shown(&[&[('h', "a", "a")]]), @"layer 0123456789ab: the hard link `a` is to `a`, which is not there");
    insta::assert_snapshot!(shown(&[&[('d', "d", ""), ('h', "a", "d")]]), @"layer 0123456789ab: the hard link `a` is to the directory `d`");
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_the_same_link() {
    insta::assert_snapshot!(shown(&[&[('l', "a", "target"), ('h', "b", "a"), ('c', "null", "")]]), @"
    l a target
    l b target
    c null
    ");
}

#[test]
fn paths_out_of_the_image_are_refused() {
    insta::assert_snapshot!(shown(&[&[('f', "a/../../etc/passwd", "x")]]), @"layer 0123456789ab: the path `a/../../etc/passwd` leads out of the image");
    insta::assert_snapshot!(shown(&[&[('f', ".wh...", "")]]), @"layer 0123456789ab: `.wh...` is no whiteout");
    insta::assert_snapshot!(shown(&[&[('f', ".", "x")]]), @"layer 0123456789ab: its root is no directory");
    assert_eq!(
        shown(&[&[('d', ".wh..wh.plnk", ""), ('f', ".wh..wh.plnk/1.2", "x"), ('f', "a", "")]]),
        "f a "
    );
}

#[test]
fn limits_are_for_all_layers_together() {
    let layers = [layer(tar(&[('f', "a", "1"), ('f', "b", "2")])), layer(tar(&[('f', "c", "3")]))];
    let limits = Limits { entries: 2, ..Limits::default() };
    let indexes: Vec<_> =
        layers.iter().enumerate().map(|(position, layer)| index(layer, position, &limits).unwrap()).collect();
    insta::assert_snapshot!(merge(indexes, &limits).unwrap_err(), @"the image: its layers have 3 entries, more than 2");
}

#[test]
fn links_cannot_take_the_time_of_the_host() {
    let steps =
        [('d', "d", ""), ('l', "x", "d/../d/../d/../d/../d/../d"), ('f', "x/1", ""), ('f', "x/2", "")];
    let layer = layer(tar(&steps));
    let limits = Limits { steps: 20, ..Limits::default() };
    let index = index(&layer, 0, &limits).unwrap();
    insta::assert_snapshot!(merge(vec![index.clone()], &limits).unwrap_err(), @"layer 0123456789ab: its paths take more than 20 steps through links and directories");
    merge(vec![index], &Limits::default()).unwrap();
}

#[test]
fn a_layer_that_changes_between_the_readings_is_noticed() {
    let (plan, _) = merged(&[&[('f', "a", "content")]]).unwrap();
    for other in [tar(&[('f', "a", "longer content")]), Vec::new(), tar(&[('d', "a", "")])] {
        let error = plan.write(&[layer(other)], &mut Vec::new()).unwrap_err();
        insta::allow_duplicates! {
            insta::assert_snapshot!(error, @"layer 0123456789ab: it changed while the image was made");
        }
    }
}

/// What is in a model: a directory, a file's content, or a link's target. No hard links, no links on the way.
#[derive(Debug, Clone, PartialEq)]
enum Model {
    Directory,
    File(String),
    Link(String),
}

/// The plainest way to apply a layer.
fn apply(tree: &mut BTreeMap<String, Model>, entries: &[(char, String, String)]) {
    let below = |tree: &mut BTreeMap<String, Model>, path: &str, itself: bool| {
        tree.retain(|known, _| !(known.starts_with(&format!("{path}/")) || itself && known == path));
    };
    for (kind, path, _) in entries {
        match kind {
            'w' => below(tree, path, true),
            'o' => below(tree, path, false),
            _ => {}
        }
    }
    for (kind, path, rest) in entries {
        let new = match kind {
            'd' => Model::Directory,
            'f' => Model::File(rest.clone()),
            'l' => Model::Link(rest.clone()),
            _ => continue,
        };
        let mut parent = String::new();
        for component in path.split('/').take(path.matches('/').count()) {
            if !parent.is_empty() {
                parent.push('/');
            }
            parent.push_str(component);
            if tree.get(&parent) != Some(&Model::Directory) {
                tree.insert(parent.clone(), Model::Directory);
            }
        }
        if !(new == Model::Directory && tree.get(path) == Some(&Model::Directory)) {
            below(tree, path, true);
            tree.insert(path.clone(), new);
        }
    }
}

fn entries() -> impl Strategy<Value = Vec<(char, String, String)>> {
    let name = prop::sample::select(vec!["a", "b", "c", "a0", "a.b"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    // Links have names of their own, so that nothing is below them.
    let entry = prop_oneof![
        (Just('d'), path.clone(), Just(String::new())),
        (Just('f'), path.clone(), "[xyz]{0,4}"),
        (Just('l'), path.clone().prop_map(|path| format!("{path}.link")), "[xyz]{1,4}"),
        (Just('w'), path.clone(), Just(String::new())),
        (Just('o'), path, Just(String::new())),
    ];
    prop::collection::vec(entry, 0..8)
}

/// How an entry is written in a layer.
fn raw((kind, path, rest): &(char, String, String)) -> (char, String, String) {
    let (parent, name) = path.rsplit_once('/').map_or(("", path.as_str()), |split| split);
    let slash = if parent.is_empty() { "" } else { "/" };
    match kind {
        'w' => ('f', format!("{parent}{slash}.wh.{name}"), String::new()),
        'o' => ('f', format!("{path}/.wh..wh..opq"), String::new()),
        _ => (*kind, path.clone(), rest.clone()),
    }
}

proptest! {
    #[test]
    fn layers_make_what_the_plainest_way_makes(stack in prop::collection::vec(entries(), 1..5)) {
        let mut model = BTreeMap::new();
        let mut layers = Vec::new();
        for entries in &stack {
            apply(&mut model, entries);
            let raws: Vec<_> = entries.iter().map(raw).collect();
            let raws: Vec<Raw<'_>> = raws.iter().map(|(k, p, r)| (*k, p.as_str(), r.as_str())).collect();
            layers.push(layer(tar(&raws)));
        }
        let limits = Limits::default();
        let indexes = layers.iter().enumerate().map(|(at, layer)| index(layer, at, &limits).unwrap()).collect();
        let plan = merge(indexes, &limits).unwrap();
        let mut files = written(&plan, &layers);
        files.remove(".");
        let expected: BTreeMap<_, _> = model.into_iter().map(|(path, model)| (path, match model {
            Model::Directory => ('d', String::new()),
            Model::File(content) => ('f', content),
            Model::Link(target) => ('l', target),
        })).collect();
        prop_assert_eq!(files, expected);
    }
}

#[test]
fn an_opaque_directory_that_replaces_a_link_spares_what_the_link_meant() {
    let base = [('f', "opt/data/precious", "x"), ('l', "link", "opt/data")];
    insta::assert_snapshot!(shown(&[&base, &[('d', "link", ""), ('f', "link/.wh..wh..opq", ""), ('f', "link/.wh.precious", ""), ('f', "link/new", "y")]]), @"
    d link 
    f link/new y
    d opt 
    d opt/data 
    f opt/data/precious x
    ");
}

#[test]
fn directories_that_no_layer_describes_count_as_entries() {
    let deep: Vec<_> = (0..20).map(|number| format!("{number}{}", "/d".repeat(40))).collect();
    let entries: Vec<Raw<'_>> = deep.iter().map(|path| ('f', path.as_str(), "")).collect();
    let layers = [layer(tar(&entries))];
    let limits = Limits { entries: 100, ..Limits::default() };
    let error = merge(vec![index(&layers[0], 0, &limits).unwrap()], &limits).unwrap_err();
    insta::assert_snapshot!(error, @"layer 0123456789ab: its files need more than 100 entries, with the directories around them");
}

#[test]
fn links_make_no_path_longer_than_it_may_be() {
    let step = "d/".repeat(45);
    let first = format!("{step}l0");
    let mut entries = vec![('l', "l0".to_owned(), step.clone()), ('d', step.clone(), String::new())];
    for number in 0..8 {
        entries.push(('d', format!("l{number}/{step}"), String::new()));
        entries.push(('l', format!("l{}", number + 1), format!("l{number}/{step}")));
    }
    let raws: Vec<Raw<'_>> = entries.iter().map(|(k, p, r)| (*k, p.as_str(), r.as_str())).collect();
    assert!(first.len() < 100);
    let error = shown(&[&raws]);
    assert!(error.ends_with("is deeper than 256 directories, by way of links"), "{error}");
}

#[test]
fn attributes_that_a_disk_cannot_have_are_left_out() {
    let mut builder = Builder::new(Vec::new());
    builder
        .append_pax_extensions([
            ("LIBARCHIVE.xattr.user.a", b"eHl6".as_slice()),
            ("SCHILY.xattr.user.a", b"xyz".as_slice()),
            ("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0".as_slice()),
        ])
        .unwrap();
    let mut header = Header::new_ustar();
    builder.append_data(&mut header, "f", &b""[..]).unwrap();
    let layers = [layer(builder.into_inner().unwrap())];
    let limits = Limits::default();
    let plan = merge(vec![index(&layers[0], 0, &limits).unwrap()], &limits).unwrap();
    let mut archive = Vec::new();
    plan.write(&layers, &mut archive).unwrap();
    let text = String::from_utf8_lossy(&archive);
    assert!(text.contains("SCHILY.xattr.user.a=xyz\n"), "{text}");
    assert!(!text.contains("eHl6") && !text.contains("posix_acl"), "{text}");
}
