use super::*;
use crate::schema::{builtin, defaults};
use proptest::prelude::*;
use serde_json::json;

fn kind(name: &str) -> TypeId {
    builtin().type_named(&format!("io.k8s.api.{name}")).expect("published")
}

fn decode(name: &str, json: &str) -> Result<(Tree, Vec<String>), String> {
    let read = decode_json(json.as_bytes(), builtin(), kind(name), Mode::Report);
    let (tree, problems) = read.map_err(|why| why.to_string())?;
    Ok((tree, problems.iter().map(ToString::to_string).collect()))
}

#[test]
fn unknown_and_duplicate_fields_are_told_by_their_paths_and_left_out() {
    let json = r#"{"kind":"Deployment","spec":{"replicas":1,"replicas":2,"foo":{"a":[1]},
        "template":{"spec":{"containers":[{"name":"a"},{"name":"b","imgae":"x"}]}},
        "selector":{"matchLabels":{"a":"b","a":"c"}}}}"#;
    let (tree, problems) = decode("apps.v1.Deployment", json).expect("an object");
    let told = [
        "duplicate field \"spec.replicas\"",
        "unknown field \"spec.foo\"",
        "unknown field \"spec.template.spec.containers[1].imgae\"",
        "duplicate field \"spec.selector.matchLabels.a\"",
    ];
    assert_eq!(problems, told);
    assert_eq!(tree["spec"]["replicas"], 2);
    assert_eq!(tree["spec"]["template"]["spec"]["containers"][1], json!({"name": "b"}));
    assert!(tree["spec"].get("foo").is_none());
    let quiet = decode_json(json.as_bytes(), builtin(), kind("apps.v1.Deployment"), Mode::Ignore);
    assert_eq!(quiet.expect("an object").1, []);
}

#[test]
fn values_of_another_type_are_refused_with_path_and_expectation() {
    let refused = |name, json| decode(name, json).expect_err("should be refused");
    assert_eq!(
        refused("apps.v1.Deployment", r#"{"spec":{"replicas":"3"}}"#),
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        refused("core.v1.Pod", r#"{"spec":{"containers":[{"name":1}]}}"#),
        "json: cannot unmarshal number into Go struct field Container.spec.containers[0].name of type string"
    );
    for json in [
        r#"{"spec":{"containers":{}}}"#,
        r#"{"spec":[]}"#,
        r#"{"spec":{"hostNetwork":"true"}}"#,
        r#"{"spec":{"terminationGracePeriodSeconds":1.5}}"#,
        r#"{"spec":{"priority":4294967296}}"#,
        r#"{"metadata":{"labels":{"a":1}}}"#,
        r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
        r#"{"spec":{"overhead":{"cpu":"much"}}}"#,
        r#"[]"#,
        r#"{"#,
        r#"{} {}"#,
        "",
    ] {
        assert!(decode("core.v1.Pod", json).is_err(), "{json}");
    }
    assert!(decode("core.v1.Secret", r#"{"data":{"a":"?"}}"#).is_err());
}

#[test]
fn values_are_stored_in_canonical_form() {
    let json = r#"{"metadata":{"creationTimestamp":null,"deletionTimestamp":"2026-01-01T01:00:00.5+01:00"},
        "spec":{"nodeName":null,"overhead":{"cpu":0.5,"memory":"0.5Gi","x":"1000m","y":"0.0001","z":3}}}"#;
    let (tree, _) = decode("core.v1.Pod", json).expect("an object");
    let overhead = json!({"cpu": "500m", "memory": "512Mi", "x": "1", "y": "1m", "z": "3"});
    assert_eq!(
        tree,
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"overhead": overhead}})
    );
    let lease = r#"{"spec":{"renewTime":"2026-01-01T00:00:00.1234567Z"}}"#;
    let (tree, _) = decode("coordination.v1.Lease", lease).expect("an object");
    assert_eq!(tree["spec"]["renewTime"], "2026-01-01T00:00:00.123456Z");
    let (tree, _) = decode("core.v1.ConfigMap", r#"{"data":{"b":null,"a":"x"}}"#).expect("an object");
    assert_eq!(&to_bytes(&tree)[..], br#"{"data":{"a":"x","b":""}}"#);
}

#[test]
fn what_any_json_may_stand_in_is_kept_as_it_is() {
    let json = r#"{"metadata":{"managedFields":[{"fieldsV1":{"f:a":{},".":null}}]}}"#;
    let (tree, problems) = decode("core.v1.Pod", json).expect("an object");
    assert!(problems.is_empty());
    assert!(tree["metadata"]["managedFields"][0]["fieldsV1"]["."].is_null());
}

#[test]
fn documents_too_deep_or_too_large_are_refused_not_followed() {
    let skipped = format!("{{\"x\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    let skipped = decode_json(skipped.as_bytes(), builtin(), kind("core.v1.Pod"), Mode::Report);
    assert_eq!(skipped, Ok((json!({}), vec![FieldProblem::Unknown("x".into())])));
    let data = format!("{{\"metadata\":{{\"managedFields\":[{{\"fieldsV1\":{}", "{\"a\":".repeat(5000));
    let deep = decode_json(data.as_bytes(), builtin(), kind("core.v1.Pod"), Mode::Report);
    assert_eq!(deep, Err(DecodeError::TooDeep));
    let large = vec![b' '; SIZE_MAX + 1];
    assert_eq!(decode_json(&large, builtin(), kind("core.v1.Pod"), Mode::Report), Err(DecodeError::TooLarge));
}

#[test]
fn the_tables_defaults_are_filled_in_once() {
    let mut pod = json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}});
    defaults::fill(&mut pod, builtin(), kind("core.v1.Pod"));
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
    let once = pod.clone();
    defaults::fill(&mut pod, builtin(), kind("core.v1.Pod"));
    assert_eq!(pod, once);
}

/// A value of a shape, from a few numbers.
fn value(schema: &Schema, shape: &Shape, chance: &mut impl FnMut() -> u32, depth: u32) -> Tree {
    match shape {
        Shape::Text => ["", "a", "b-c"][chance() as usize % 3].into(),
        Shape::Flag => chance().is_multiple_of(2).into(),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => (i64::from(chance()) - 5).into(),
        Shape::Double => 0.5.into(),
        Shape::Bytes => ["", "YQ=="][chance() as usize % 2].into(),
        Shape::Time => "2026-01-02T03:04:05.6Z".into(),
        Shape::MicroTime => "2026-01-02T03:04:05.6Z".into(),
        Shape::Quantity => ["1000m", "0.5Gi", "3", "2e3"][chance() as usize % 4].into(),
        Shape::Any => json!({"x": [null, 1]}),
        Shape::Object(_) if depth > 4 => json!({}),
        Shape::Object(id) => {
            let fields = schema.get(*id).fields.iter();
            let some: Vec<_> = fields.filter(|_| chance().is_multiple_of(3)).collect();
            let named = |field: &&crate::schema::Field| field.name.to_string();
            some.iter().map(|field| (named(field), value(schema, &field.shape, chance, depth + 1))).collect()
        }
        Shape::List { item, .. } => {
            (0..chance() % 3).map(|_| value(schema, item, chance, depth + 1)).collect()
        }
        Shape::Map { value: of, .. } => {
            (0..chance() % 3).map(|at| (format!("k{at}"), value(schema, of, chance, depth + 1))).collect()
        }
    }
}

proptest! {
    #[test]
    fn what_was_decoded_decodes_to_itself(numbers in proptest::collection::vec(0_u32..12, 50..400), at in 0_usize..700) {
        let schema = builtin();
        let id = TypeId(at as u32);
        let mut next = numbers.iter().copied().cycle();
        let tree = value(schema, &Shape::Object(id), &mut || next.next().unwrap_or(1), 0);
        let (once, problems) = decode_json(&to_bytes(&tree), schema, id, Mode::Report).expect("of the table's shape");
        prop_assert!(problems.is_empty());
        let bytes = to_bytes(&once);
        let (twice, _) = decode_json(&bytes, schema, id, Mode::Report).expect("its own bytes");
        prop_assert_eq!(&bytes, &to_bytes(&twice));
        let (from_tree, _) = decode_tree(tree, schema, id, Mode::Report).expect("of the table's shape");
        prop_assert_eq!(&from_tree, &once);
        let mut filled = once.clone();
        defaults::fill(&mut filled, schema, id);
        let again = { let mut again = filled.clone(); defaults::fill(&mut again, schema, id); again };
        prop_assert_eq!(filled, again);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[\\[\\]{}:,\"a-c0-9. ]{0,60}") {
        let _ = decode_json(&bytes, builtin(), TypeId(7), Mode::Report);
        let _ = decode_json(text.as_bytes(), builtin(), TypeId(7), Mode::Report);
    }
}
