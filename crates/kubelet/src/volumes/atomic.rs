//! Changes all files of a volume in one step: a folder for each version, and `..data` leading to the present one.
//!
//! A reader sees the old files or the new ones, never a mixture; what it has open stays whole. Doing it twice, or
//! dying in between, leaves one of the two.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::payload::Payload;
use crate::files::Files;

/// The link to the present version.
const DATA: &str = "..data";

/// Makes the files below `dir` be these; says whether that changed anything. `group` may read them, `user` owns tokens.
pub fn publish(
    files: &dyn Files,
    dir: &Path,
    payload: &Payload,
    owners: (Option<i64>, Option<i64>),
    version: &str,
) -> io::Result<bool> {
    let present = files.linked(&dir.join(DATA))?;
    if let Some(present) = &present
        && is_same(files, &dir.join(present), payload)?
    {
        return Ok(false);
    }
    let name = format!("..{version}");
    let next = dir.join(&name);
    write_version(files, &next, payload, owners)?;
    files.link(Path::new(&name), &dir.join(DATA))?;
    show(files, dir, payload)?;
    if let Some(present) = present.filter(|present| present.as_path() != Path::new(&name)) {
        files.remove(&dir.join(present))?;
    }
    Ok(true)
}

fn write_version(
    files: &dyn Files,
    next: &Path,
    payload: &Payload,
    (group, user): (Option<i64>, Option<i64>),
) -> io::Result<()> {
    files.remove(next)?;
    files.make_dir(next, 0o755)?;
    for (path, content) in payload {
        let at = next.join(path);
        let is_owned = content.is_token && (user.is_some() || group.is_some());
        files.write(&at, &content.bytes, if is_owned { 0o600 } else { content.mode })?;
        if let (true, Some(user)) = (is_owned, user) {
            files.give_to_user(&at, user)?;
        }
    }
    match group {
        Some(group) => files.give_to_group(next, group, false),
        None => Ok(()),
    }
}

/// Whether the files of a version are these; their modes are those they were written with.
fn is_same(files: &dyn Files, version: &Path, payload: &Payload) -> io::Result<bool> {
    let mut found = BTreeSet::new();
    gather(files, version, &mut PathBuf::new(), &mut found)?;
    if found != payload.keys().map(PathBuf::from).collect() {
        return Ok(false);
    }
    for (path, content) in payload {
        if files.read(&version.join(path))? != content.bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

fn gather(files: &dyn Files, root: &Path, at: &mut PathBuf, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for name in files.list(&root.join(&*at))? {
        at.push(&name);
        match files.kind(&root.join(&*at))? {
            Some(crate::files::FileKind::Dir) => gather(files, root, at, found)?,
            _ => {
                found.insert(at.clone());
            }
        }
        at.pop();
    }
    Ok(())
}

/// Links to the first parts of all paths, through `..data`; links to what is gone are removed.
fn show(files: &dyn Files, dir: &Path, payload: &Payload) -> io::Result<()> {
    let tops: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in files.list(dir)? {
        if !name.starts_with("..") && !tops.contains(name.as_str()) {
            files.remove(&dir.join(name))?;
        }
    }
    for top in tops {
        if files.linked(&dir.join(top))?.is_none() {
            files.link(&Path::new(DATA).join(top), &dir.join(top))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{RealFiles, SimFiles};
    use crate::volumes::payload::Content;

    fn payload(text: &str) -> Payload {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        let content = |value: &str| Content { bytes: value.into(), mode: 0o640, is_token: false };
        pairs.map(|(path, value)| (path.to_owned(), content(value))).collect()
    }

    /// Publishes each step in turn and tells what a reader finds at the end.
    fn check(files: &dyn Files, dir: &Path, steps: &[&str], expected: &str) {
        for (i, step) in steps.iter().enumerate() {
            let changed = publish(files, dir, &payload(step), (None, None), &format!("v{i}"))
                .expect("it can be written");
            assert!(changed, "step {i} changes something");
            assert!(!publish(files, dir, &payload(step), (None, None), "again").expect("it can be read"));
        }
        let shown = payload(expected);
        for (path, content) in &shown {
            assert_eq!(files.read(&dir.join(path)).expect("it is there"), content.bytes, "{path}");
        }
        let names: Vec<_> =
            files.list(dir).expect("it is a folder").into_iter().filter(|n| !n.starts_with("..")).collect();
        let tops: BTreeSet<_> = shown.keys().filter_map(|path| path.split('/').next()).collect();
        assert_eq!(names, tops.into_iter().collect::<Vec<_>>());
        let versions =
            files.list(dir).expect("it is a folder").into_iter().filter(|n| n.starts_with("..v")).count();
        assert_eq!(versions, 1, "old versions are removed");
    }

    #[test]
    fn files_come_change_and_go_in_one_step() {
        let steps = ["a=1 d/e=2", "a=3 d/f=4", "d/f=5 g=6"];
        check(&SimFiles::new(), Path::new("/v"), &steps, "d/f=5 g=6");
        let dir = tempfile::tempdir().expect("a folder can be made");
        check(&RealFiles, dir.path(), &steps, "d/f=5 g=6");
    }
}
