use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;

/// One entry: kind, path, content or target.
type File<'a> = (EntryType, &'a str, &'a str);

const FILE: EntryType = EntryType::Regular;
const DIR: EntryType = EntryType::Directory;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

fn archive(files: &[File<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if *kind == DIR { 0o1770 } else { 0o4755 });
        header.set_uid(7);
        header.set_gid(8);
        let data = if *kind == FILE { text.as_bytes() } else { b"" };
        header.set_size(data.len() as u64);
        // Written by hand, because the builder refuses the paths that we want refused.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        if *kind == LINK || *kind == HARD {
            let link = &mut header.as_old_mut().linkname;
            link[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, data).expect("it fits");
    }
    builder.into_inner().expect("it is whole")
}

struct Layers {
    dir: tempfile::TempDir,
    count: usize,
}

impl Layers {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("outside"), "safe").expect("it can be written");
        Self { dir, count: 0 }
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("layer{number}"))
    }

    fn add(&mut self, files: &[File<'_>]) -> io::Result<PathBuf> {
        let lowers: Vec<PathBuf> = (0..self.count).rev().map(|number| self.path(number)).collect();
        let root = self.path(self.count);
        self.count += 1;
        std::fs::create_dir(&root)?;
        unpack(&archive(files)[..], &root, &lowers)?;
        assert_eq!(std::fs::read_to_string(self.dir.path().join("outside"))?, "safe");
        Ok(root)
    }
}

#[test]
fn owners_modes_and_setuid_are_kept() {
    let mut layers = Layers::new();
    let root = layers.add(&[(DIR, "bin/", ""), (FILE, "bin/su", "x")]).expect("it is sound");
    let file = root.join("bin/su").metadata().expect("it is there");
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (7, 8, 0o4755));
    assert_eq!(root.join("bin").metadata().expect("it is there").mode() & 0o7777, 0o1770);
}

#[test]
fn links_cannot_lead_outside() {
    let above = "../../../../../../../../../../";
    for target in [format!("{above}tmp"), "/tmp".to_owned(), above.to_owned()] {
        let mut layers = Layers::new();
        let root = layers.add(&[(LINK, "a", &target), (FILE, "a/made", "x")]);
        let root = root.expect("links are resolved inside");
        let inside = walk(&root);
        assert!(inside.keys().any(|path| path.ends_with("made")), "{inside:?}");
        assert!(!Path::new("/tmp/made").exists() && !Path::new("/made").exists());
    }
    assert!(Layers::new().add(&[(FILE, "../outside", "x")]).is_err());
    assert!(Layers::new().add(&[(FILE, "a/../../outside", "x")]).is_err());
    assert!(Layers::new().add(&[(HARD, "a", "../outside")]).is_err());
    let through = [(LINK, "a", ".."), (HARD, "b", "a/outside")];
    assert!(Layers::new().add(&through).is_err());
    // A file takes the place of a link, and is not written through it.
    let mut layers = Layers::new();
    let root = layers.add(&[(LINK, "a", "../outside"), (FILE, "a", "x")]).expect("it is sound");
    assert!(root.join("a").symlink_metadata().expect("it is there").is_file());
}

fn walk(root: &Path) -> BTreeMap<PathBuf, std::fs::FileType> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("it is a folder").flatten() {
            let kind = entry.file_type().expect("it is there");
            if kind.is_dir() {
                dirs.push(entry.path());
            }
            found.insert(entry.path(), kind);
        }
    }
    found
}

#[test]
fn deleted_files_become_whiteouts() {
    let mut layers = Layers::new();
    layers.add(&[(DIR, "etc/", ""), (FILE, "etc/a", "x"), (DIR, "old/", "")]).expect("it is sound");
    let root = layers.add(&[(FILE, "etc/.wh.a", ""), (DIR, "old/", ""), (FILE, "old/.wh..wh..opq", "")]);
    let root = root.expect("it is sound");
    let mark = root.join("etc/a").symlink_metadata().expect("it is marked");
    assert!(mark.file_type().is_char_device() && mark.rdev() == 0);
    let mut value = [0; 1];
    let len = rustix::fs::getxattr(root.join("old"), "trusted.overlay.opaque", &mut value[..])
        .expect("it is marked");
    assert_eq!(&value[..len], b"y");
    for bad in [".wh.", ".wh...", "etc/.wh.."] {
        assert!(Layers::new().add(&[(FILE, bad, "")]).is_err(), "{bad}");
    }
}

#[test]
fn folders_that_are_not_named_look_as_beneath() {
    let mut layers = Layers::new();
    layers
        .add(&[(DIR, "tmp/", ""), (DIR, "usr/", ""), (DIR, "usr/lib/", ""), (LINK, "lib", "usr/lib")])
        .expect("it is sound");
    let root = layers.add(&[(FILE, "tmp/a", "x"), (FILE, "lib/b", "x")]).expect("it is sound");
    let tmp = root.join("tmp").metadata().expect("it is there");
    assert_eq!((tmp.mode() & 0o7777, tmp.uid()), (0o1770, 7));
    assert!(root.join("lib").symlink_metadata().expect("it is there").is_symlink());
    assert!(root.join("usr/lib/b").exists());
}

#[test]
fn hard_links_reach_into_the_layers_beneath() {
    let mut layers = Layers::new();
    layers.add(&[(FILE, "a", "text")]).expect("it is sound");
    let root = layers.add(&[(HARD, "b", "a")]).expect("it is sound");
    assert_eq!(std::fs::read_to_string(root.join("b")).expect("it is there"), "text");
    assert!(layers.add(&[(HARD, "c", "missing")]).is_err());
}

#[test]
fn compression_is_recognised_and_the_digest_is_of_what_was_packed() {
    use std::io::Write;
    let plain = archive(&[(FILE, "a", "text")]);
    let want = format!("sha256:{}", hex(&Sha256::digest(&plain)));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).expect("there is room");
    let packed = [
        plain.clone(),
        gzip.finish().expect("it is whole"),
        zstd::encode_all(&plain[..], 1).expect("it is whole"),
    ];
    for bytes in packed {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(unpack(&bytes[..], dir.path(), &[]).expect("it is sound"), want);
    }
}

#[test]
fn a_cut_off_archive_is_refused() {
    let plain = archive(&[(FILE, "a", &"x".repeat(5000))]);
    let dir = tempfile::tempdir().expect("a folder");
    assert!(unpack(&plain[..1000], dir.path(), &[]).is_err());
}
