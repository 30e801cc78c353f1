//! What holds of every text: reading it never panics, and evaluating it ends within its budget.
//!
//! `PROPTEST_CASES=1000000 cargo test -p cel laws` goes on for as long as one likes.

use proptest::prelude::*;
use serde_json::json;

use crate::{Budget, Environment, Program, Value};

/// Pieces of the language, so that not every text is refused at its first word.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "object",
            "x",
            "y",
            "true",
            "false",
            "null",
            "1",
            "0",
            "-1",
            "9223372036854775807",
            "2u",
            "1.5",
            "'a'",
            "''",
            "b'a'",
            "r'\\d+'",
            "'1h'",
            "'2026-01-01T00:00:00Z'",
            "'10.0.0.0/8'",
            "'1Gi'",
            "'1.2.3'",
            "[",
            "]",
            "(",
            ")",
            "{",
            "}",
            ",",
            ".",
            "?",
            ":",
            "!",
            "-",
            "+",
            "*",
            "/",
            "%",
            "==",
            "!=",
            "<",
            "<=",
            ">",
            ">=",
            "&&",
            "||",
            " in ",
            "has(",
            "size(",
            "int(",
            "string(",
            "duration(",
            "timestamp(",
            "quantity(",
            "ip(",
            "cidr(",
            "url(",
            "semver(",
            ".all(x, ",
            ".exists(x, ",
            ".map(x, ",
            ".filter(x, ",
            ".all(x, y, ",
            ".transformMap(x, y, ",
            ".sortBy(x, ",
            ".matches(",
            ".split(",
            ".format(",
            ".join(",
            ".substring(",
            ".replace(",
            ".sort()",
            ".sum()",
            ".flatten()",
            ".?a",
            "[?",
            ".orValue(",
            ".optMap(x, ",
            "optional.of(",
            "lists.range(",
            ".list",
            ".map",
            ".text",
            "`a-b`",
        ])
        .prop_map(str::to_owned),
        "[a-z0-9 '\"().,]{0,6}",
    ]
}

fn run(text: &str) {
    let Ok(program) = Program::compile(text, &Environment::of(&["object"])) else { return };
    let object =
        json!({"list": [1, 2, "a", null, [1]], "map": {"a": 1, "b": "c"}, "text": "some text", "a": 1.5});
    let mut budget = Budget::new(20_000);
    let value = program.evaluate(&[("object", Value::json(&object))], &mut budget);
    if let Ok(value) = value {
        assert!(!format!("{value:?}").is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
        run(&text);
    }

    #[test]
    fn what_is_made_of_the_languages_pieces_ends(pieces in prop::collection::vec(piece(), 0..20)) {
        run(&pieces.concat());
    }

    #[test]
    fn nested_macros_end(depth in 1..12_usize, kind in 0..4_usize) {
        let open = ["lists.range(100).map(x, ", "lists.range(100).all(x, ", "[0, 1].map(x, ", "{'a': 1}.transformMap(k, v, "][kind];
        let text = format!("{}{}{}", open.repeat(depth), "true", ")".repeat(depth));
        run(&text);
    }
}
