//! The table of built-in types, read from its committed form at first use.
//!
//! The form is described where it is made (`cargo xtask table`). A table that does not parse is a fault of the
//! build, and a test says so; nothing that a user sends can reach the panics here.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::{Field, ListMerge, PatchStrategy, Schema, Shape, Type, TypeId};

static TEXT: &str = include_str!("v1_36.tsv");

/// The types of this project's own kinds, in the same form. Their names come after all published ones.
static OURS: &str = include_str!("ours.tsv");

/// The table of everything that Kubernetes v1.36 publishes, and of the kinds that are ours.
pub fn builtin() -> &'static Schema {
    static TABLE: OnceLock<Schema> = OnceLock::new();
    TABLE.get_or_init(|| parse(&[TEXT, OURS].concat()).expect("the committed table parses, as a test shows"))
}

/// Reads a table; `None` when it is not one.
fn parse(text: &str) -> Option<Schema> {
    let mut reader = Reader::default();
    let names = text.lines().filter_map(|line| line.strip_prefix("T\t"));
    for (at, line) in names.enumerate() {
        let name = line.split('\t').next()?;
        reader.ids.insert(name, TypeId(u32::try_from(at).ok()?));
    }
    let mut types: Vec<Type> = Vec::with_capacity(reader.ids.len());
    for line in text.lines() {
        match line.strip_prefix("T\t") {
            Some(head) => types.push(reader.kind(head)?),
            None => {
                let of = types.last_mut()?;
                let mut field = reader.field(line)?;
                let name = of.name.rsplit('.').next().unwrap_or_default();
                field.omits_empty &= !SHOWN_EMPTY.contains(&(name, &field.name));
                of.fields.push(field);
            }
        }
    }
    Some(Schema { types })
}

/// What is shared while reading: the ids of types, and strings that recur.
/// Hashed, because names share long beginnings; their order reaches nothing.
#[derive(Default)]
struct Reader<'a> {
    ids: HashMap<&'a str, TypeId>,
    strings: HashMap<&'a str, Arc<str>>,
}

/// Lists that need not be there and are shown without items all the same, by the last word of their type: the published
/// schemas do not tell.
const SHOWN_EMPTY: &[(&str, &str)] = &[
    ("AllocatedDeviceStatus", "conditions"),
    ("CSINodeDriver", "topologyKeys"),
    ("ClusterRole", "rules"),
    ("ContainerImage", "names"),
    ("CustomResourceDefinitionStatus", "conditions"),
    ("CustomResourceDefinitionStatus", "storedVersions"),
    ("DeviceClaim", "requests"),
    ("EndpointSlice", "endpoints"),
    ("EndpointSlice", "ports"),
    ("HorizontalPodAutoscalerStatus", "currentMetrics"),
    ("ProjectedVolumeSource", "sources"),
    ("ResourcePolicyRule", "namespaces"),
    ("Role", "rules"),
    ("TokenRequestSpec", "audiences"),
];

impl<'a> Reader<'a> {
    fn kind(&mut self, head: &'a str) -> Option<Type> {
        let mut cells = head.split('\t');
        let name = self.share(cells.next()?);
        let flags = cells.next().unwrap_or_default();
        Some(Type { name, fields: Vec::new(), open: flags.contains('o'), atomic: flags.contains('a') })
    }

    fn field(&mut self, line: &'a str) -> Option<Field> {
        let mut cells = line.split('\t');
        let mut field = Field::new(self.share(cells.next()?), Shape::Any);
        let mut numbers: Vec<u32> =
            cells.next()?.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        field.proto = numbers.pop()?;
        field.proto_within = numbers;
        field.shape = self.shape(cells.next()?)?;
        let flags = cells.next().unwrap_or_default();
        field.required = flags.contains('r');
        field.patch = PatchStrategy { merge: flags.contains('m'), retain_keys: flags.contains('k') };
        field.omits_empty = !field.required && matches!(field.shape, Shape::List { .. } | Shape::Map { .. });
        field.merge_key = cells.next().filter(|key| !key.is_empty()).map(|key| self.share(key));
        field.default = match cells.next() {
            Some(json) => Some(serde_json::from_str(json).ok()?),
            None => None,
        };
        Some(field)
    }

    fn shape(&mut self, text: &'a str) -> Option<Shape> {
        if let Some(name) = text.strip_prefix('@') {
            return self.ids.get(name).copied().map(Shape::Object);
        }
        if let Some(list) = text.strip_prefix('[') {
            let (merge, item) = list.split_once(']')?;
            return Some(Shape::List { item: Box::new(self.shape(item)?), merge: self.merge(merge) });
        }
        if let Some(map) = text.strip_prefix('{') {
            let (atomic, value) = map.split_once('}')?;
            return Some(Shape::Map { value: Box::new(self.shape(value)?), atomic: atomic == "!" });
        }
        scalar(text)
    }

    fn merge(&mut self, text: &'a str) -> ListMerge {
        match text {
            "" => ListMerge::Atomic,
            "=" => ListMerge::Set,
            keys => ListMerge::Map(keys.split(',').map(|key| self.share(key)).collect()),
        }
    }

    fn share(&mut self, text: &'a str) -> Arc<str> {
        self.strings.entry(text).or_insert_with(|| text.into()).clone()
    }
}

fn scalar(text: &str) -> Option<Shape> {
    Some(match text {
        "s" => Shape::Text,
        "f" => Shape::Flag,
        "i" => Shape::Int32,
        "l" => Shape::Int64,
        "d" => Shape::Double,
        "y" => Shape::Bytes,
        "t" => Shape::Time,
        "m" => Shape::MicroTime,
        "q" => Shape::Quantity,
        "x" => Shape::IntOrString,
        "*" => Shape::Any,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: &str, name: &str) -> Field {
        let table = builtin();
        let id = table.type_named(kind).expect("the type is published");
        table.get(id).field(name).expect("the field is published").clone()
    }

    #[test]
    fn what_is_shown_empty_is_published() {
        for (kind, name) in SHOWN_EMPTY {
            let of = builtin().types.iter().filter(|of| of.name.rsplit('.').next() == Some(kind));
            let mut fields = of.filter_map(|of| of.field(name)).filter(|field| !field.required).peekable();
            assert!(fields.peek().is_some() && fields.all(|field| !field.omits_empty), "{kind} {name}");
        }
        assert!(field("io.k8s.api.core.v1.ServiceSpec", "externalIPs").omits_empty);
        assert!(field("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "labels").omits_empty);
        assert!(!field("io.k8s.api.core.v1.PodSpec", "containers").omits_empty);
        assert!(!field("io.k8s.api.core.v1.PodSpec", "securityContext").omits_empty);
    }

    #[test]
    fn the_committed_table_parses_and_is_ordered() {
        let table = builtin();
        assert!(table.types.len() > 700);
        assert!(table.types.is_sorted_by(|a, b| a.name < b.name));
        assert!(table.types.iter().all(|kind| kind.fields.is_sorted_by(|a, b| a.name < b.name)));
    }

    #[test]
    fn fields_carry_their_merge_rules() {
        let volumes = field("io.k8s.api.core.v1.PodSpec", "volumes");
        assert_eq!(volumes.patch, PatchStrategy { merge: true, retain_keys: true });
        assert_eq!(volumes.merge_key.as_deref(), Some("name"));
        let ports = field("io.k8s.api.core.v1.Container", "ports");
        let Shape::List { merge: ListMerge::Map(keys), .. } = ports.shape else {
            panic!("ports are a keyed list")
        };
        assert_eq!(keys.len(), 2);
        assert_eq!(field("io.k8s.api.core.v1.ServicePort", "protocol").default, Some("TCP".into()));
    }

    #[test]
    fn messages_that_json_inlines_are_known_by_their_numbers() {
        let volume = builtin().get(builtin().type_named("io.k8s.api.core.v1.Volume").expect("published"));
        assert!(volume.proto_nests(&[], 2));
        assert_eq!(volume.field("configMap").map(|f| f.proto_within.clone()), Some(vec![2]));
        let found = volume.proto_field_within(&[2], 19).map(|f| f.name.to_string());
        assert_eq!(found.as_deref(), Some("configMap"));
        assert_eq!(volume.proto_field(1).map(|f| f.name.to_string()).as_deref(), Some("name"));
    }

    #[test]
    fn references_to_the_claim_of_a_volume_merge_field_by_field() {
        let table = builtin();
        let Shape::Object(id) = field("io.k8s.api.core.v1.PersistentVolumeSpec", "claimRef").shape else {
            panic!("a reference is an object")
        };
        assert!(!table.get(id).atomic);
        let plain = table.type_named("io.k8s.api.core.v1.ObjectReference").expect("published");
        assert!(table.get(plain).atomic);
    }
}
