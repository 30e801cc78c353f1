//! What a program needs to run: its loader and shared libraries, read from its ELF headers.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

/// Libraries followed at most; real programs need a dozen.
const LIBRARIES_MAX: usize = 256;
/// Where libraries are, besides what `ld.so.conf` names.
const FOLDERS: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// The loader and all libraries of `program`, by the path under which the loader looks for them; empty for a static
/// program.
pub(crate) fn needs(program: &Path) -> io::Result<BTreeMap<PathBuf, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut waiting = VecDeque::from([program.to_path_buf()]);
    while let Some(path) = waiting.pop_front() {
        let file = Elf::parse(&std::fs::read(&path)?)?;
        if let Some(loader) = file.loader {
            found.insert(loader.clone(), loader);
        }
        for name in file.libraries {
            let known =
                found.keys().any(|path: &PathBuf| path.file_name().is_some_and(|known| *known == *name));
            if known {
                continue;
            }
            let at = locate(&name).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("library {name} is missing"))
            })?;
            waiting.push_back(at.clone());
            found.insert(at.clone(), at);
            if found.len() > LIBRARIES_MAX {
                return Err(invalid("it needs too many libraries"));
            }
        }
    }
    Ok(found)
}

fn locate(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// What the headers of a file say.
#[derive(Debug, Default, PartialEq)]
struct Elf {
    loader: Option<PathBuf>,
    libraries: Vec<String>,
}

/// One program header: kind, offset in the file, address, length in the file.
struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    len: u64,
}

const SEGMENT_LOAD: u64 = 1;
const SEGMENT_DYNAMIC: u64 = 2;
const SEGMENT_LOADER: u64 = 3;
const TAG_NEEDED: u64 = 1;
const TAG_STRINGS: u64 = 5;

impl Elf {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
            return Err(invalid("it is no 64-bit little-endian ELF file"));
        }
        let (start, size, count) = (number(bytes, 32, 8)?, number(bytes, 54, 2)?, number(bytes, 56, 2)?);
        let mut segments = Vec::new();
        for index in 0..count {
            let at = start + index * size;
            let field = |offset, len| number(bytes, at + offset, len);
            segments.push(Segment {
                kind: field(0, 4)?,
                offset: field(8, 8)?,
                address: field(16, 8)?,
                len: field(32, 8)?,
            });
        }
        let of_kind = |kind| segments.iter().find(|segment| segment.kind == kind);
        let loader = of_kind(SEGMENT_LOADER)
            .map(|segment| text(bytes, segment.offset).map(PathBuf::from))
            .transpose()?;
        let libraries = match of_kind(SEGMENT_DYNAMIC) {
            Some(dynamic) => needed(bytes, dynamic, &segments)?,
            None => Vec::new(),
        };
        Ok(Self { loader, libraries })
    }
}

fn needed(bytes: &[u8], dynamic: &Segment, segments: &[Segment]) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut strings = None;
    for index in 0..dynamic.len / 16 {
        let at = dynamic.offset + index * 16;
        let (tag, value) = (number(bytes, at, 8)?, number(bytes, at + 8, 8)?);
        match tag {
            0 => break,
            TAG_NEEDED => names.push(value),
            TAG_STRINGS => strings = Some(value),
            _ => {}
        }
    }
    let Some(address) = strings.filter(|_| !names.is_empty()) else { return Ok(Vec::new()) };
    let holds = |s: &&Segment| s.kind == SEGMENT_LOAD && s.address <= address && address - s.address < s.len;
    let segment = segments.iter().find(holds).ok_or_else(|| invalid("its names are nowhere"))?;
    let strings = segment.offset + (address - segment.address);
    names.into_iter().map(|name| text(bytes, strings.saturating_add(name))).collect()
}

fn number(bytes: &[u8], at: u64, len: usize) -> io::Result<u64> {
    let at = usize::try_from(at).map_err(|_| invalid("it is cut off"))?;
    let part =
        at.checked_add(len).and_then(|end| bytes.get(at..end)).ok_or_else(|| invalid("it is cut off"))?;
    let mut whole = [0; 8];
    whole[..len].copy_from_slice(part);
    Ok(u64::from_le_bytes(whole))
}

fn text(bytes: &[u8], at: u64) -> io::Result<String> {
    let rest =
        usize::try_from(at).ok().and_then(|at| bytes.get(at..)).ok_or_else(|| invalid("it is cut off"))?;
    let end = rest.iter().position(|byte| *byte == 0).ok_or_else(|| invalid("it is cut off"))?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_refused() {
        let own = std::fs::read("/proc/self/exe").expect("we are a file");
        assert!(Elf::parse(&own).is_ok());
        for len in [0, 5, 6, 63, 64, 100] {
            assert!(Elf::parse(&own[..len]).is_err(), "{len}");
        }
    }
}
