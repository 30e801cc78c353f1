//! A world in a few lines of text, for tests of decisions.

use model::{Gvr, Key, Object, Time, World};

/// A world of lines: a plural and an object in JSON. All of the core group.
pub struct Text(Vec<(Gvr, Object)>);

impl Text {
    /// Reads the lines.
    pub fn new(lines: &str) -> Self {
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        let read = lines.map(|line| {
            let (plural, json) = line.split_once(' ').expect("a plural and an object");
            let gvr = Gvr { plural: plural.to_owned().into(), ..Gvr::new("", "v1", "") };
            (gvr, Object::read(json.to_owned().into()).expect("an object"))
        });
        Self(read.collect())
    }
}

impl World for Text {
    fn get(&self, key: &Key) -> Option<Object> {
        self.list(&key.gvr, &key.namespace).into_iter().find(|object| object.name() == key.name)
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Object> {
        let fits = |object: &&Object| namespace.is_empty() || object.namespace() == namespace;
        self.0.iter().filter(|(of, _)| of == gvr).map(|(_, object)| object).filter(fits).cloned().collect()
    }
}

/// A time in seconds.
pub fn at(seconds: i64) -> Time {
    Time::from_second(seconds).expect("a time")
}
