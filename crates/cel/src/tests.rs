//! What expressions come to: text in, text out.

use std::sync::Arc;

use serde_json::json;

use crate::{ANY_LEN, Budget, Environment, Program, Shape, Type, Value};

/// What an expression over an `object` comes to, or why not.
fn told(text: &str) -> String {
    let object = json!({
        "name": "web", "replicas": 3, "share": 0.5, "nothing": null, "labels": {"app": "web", "a-b/c": "d"},
        "list": [1, 2, 3], "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53}],
    });
    let program = match Program::compile(text, &Environment::of(&["object"])) {
        Ok(program) => program,
        Err(faulty) => return faulty.text,
    };
    let mut budget = Budget::new(10_000_000);
    match program.evaluate(&[("object", Value::json(&object))], &mut budget) {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error: {error}"),
    }
}

#[track_caller]
fn check(table: &[(&str, &str)]) {
    for (text, wanted) in table {
        assert_eq!(told(text), *wanted, "{text}");
    }
}

#[test]
fn literals_and_operators() {
    check(&[
        ("1 + 2 * 3 - 4 / 2 % 3", "5"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("1 / 0", "error: division by zero"),
        ("0x1F", "31"),
        ("7u + 1u", "8u"),
        ("1.5e2", "150.0"),
        (".5", "0.5"),
        ("- 3", "-3"),
        ("--3", "3"),
        ("!!true", "true"),
        ("'a' + \"b\" + '''c'd''' + r'\\n'", "\"abc'd\\\\n\""),
        ("'\\u00e9\\x41\\101\\n'", "\"éAA\\n\""),
        ("b'\\xff' == b'\\377'", "true"),
        ("1 < 2u && 2.5 > 2 && 1 == 1 // a comment", "true"),
        ("[1, 2] + [3]", "[1,2,3]"),
        ("{'a': 1, 'b': 2}.b", "2"),
        ("{'a': 1}['b']", "error: no such key: b"),
        ("[1][1]", "error: index out of bounds: 1"),
        ("2 in [1, 2] && !('x' in {'y': 1})", "true"),
        ("true ? 'yes' : 'no'", "\"yes\""),
        // What may be anything stays so beside a null, whichever comes first; what may be a time does not.
        ("(object.replicas > 5 ? null : object.labels).app", "\"web\""),
        ("(object.replicas > 2 ? object.labels : null).app", "\"web\""),
        ("(!has(object.name) ? null : !has(object.list) ? null : object.labels).app", "\"web\""),
        ("(true ? [object] : [null])[0].name", "\"web\""),
        ("(false ? [null] : [object])[0].name", "\"web\""),
        (
            "(true ? null : duration('1s')).x",
            "ERROR: <input>:1:31: type 'null' does not support field selection\n | (true ? null : duration('1s')).x\n | ..............................^",
        ),
        ("dyn(1) == dyn(1.0) && dyn('1') != dyn(1)", "true"),
        ("type(1) == int && type('a') == string && type(type(1)) == type", "true"),
        ("type(ip('::1')) == net.IP && type(duration('1s')) == google.protobuf.Duration", "true"),
        ("null == null", "true"),
    ]);
}

#[test]
fn one_side_makes_up_for_an_error_of_another() {
    check(&[
        ("object.absent == 1 || true", "true"),
        ("true || object.absent == 1", "true"),
        ("object.absent == 1 && false", "false"),
        ("object.absent == 1 || false", "error: no such key: absent"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0, 1].all(x, 1 / x == 1)", "error: division by zero"),
    ]);
}

#[test]
fn objects_are_read_where_they_lie() {
    check(&[
        ("object.replicas > 1", "true"),
        ("object.share", "0.5"),
        ("object.labels['a-b/c']", "\"d\""),
        ("object.labels.`a-b/c`", "\"d\""),
        ("has(object.labels.app) && !has(object.labels.no)", "true"),
        ("object.ports.exists(p, p.name == 'dns' && p.port == 53)", "true"),
        ("object.ports.map(p, p.port)", "[80,53]"),
        ("object.ports.filter(p, p.port > 60).size()", "1"),
        ("object.?absent.?deeper.orValue('none')", "\"none\""),
        ("object.?name.hasValue()", "true"),
        ("object.absent", "error: no such key: absent"),
        ("object.nothing == null", "true"),
        ("object.name.size", "error: no such overload"),
        ("size(object.name) + size(object.list) + size(object.labels)", "8"),
    ]);
}

#[test]
fn macros_go_through_lists_and_maps() {
    check(&[
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4,6]"),
        ("[1, 2, 3].exists_one(x, x > 2)", "true"),
        ("{'a': 1, 'b': 2}.all(k, k != 'c')", "true"),
        ("{'a': 1, 'b': 2}.all(k, v, v < 3 && k < 'c')", "true"),
        ("['a', 'b'].exists(i, v, i == 1 && v == 'b')", "true"),
        ("['a', 'b'].transformList(i, v, v + string(i))", "[\"a0\",\"b1\"]"),
        ("{'a': 1}.transformMap(k, v, v + 1)", "{\"a\":2}"),
        ("{'a': 'x'}.transformMapEntry(k, v, {v: k})", "{\"x\":\"a\"}"),
        ("[3, 1, 2].sort()", "[1,2,3]"),
        ("object.ports.sortBy(p, p.port).map(p, p.name)", "[\"dns\",\"http\"]"),
        ("optional.of(2).optMap(x, x * 2).value()", "4"),
        ("[?optional.none(), ?optional.of(1)]", "[1]"),
        ("{?'a': optional.none(), 'b': 1}", "{\"b\":1}"),
        ("[[1], [2, 3]].flatten()", "[1,2,3]"),
        ("lists.range(3).reverse()", "[2,1,0]"),
        ("[1, 1, 2].distinct().sum()", "3"),
        ("[1, 2, 3].slice(1, 2).first().value()", "2"),
        ("[3, 1].min() + [3, 1].max()", "4"),
        ("[1, 2].isSorted() && [2, 1, 2].lastIndexOf(2) == 2", "true"),
        (
            "sets.contains([1, 2], [2]) && sets.intersects([1], [1, 3]) && sets.equivalent([1, 1], [1])",
            "true",
        ),
    ]);
}

#[test]
fn strings() {
    check(&[
        ("'hello'.startsWith('he') && 'hello'.endsWith('lo') && 'hello'.contains('ell')", "true"),
        ("'abc'.matches('^[a-c]+$')", "true"),
        ("'a,b,c'.split(',')", "[\"a\",\"b\",\"c\"]"),
        ("'a,b,c'.split(',', 2)", "[\"a\",\"b,c\"]"),
        ("['a', 'b'].join('-')", "\"a-b\""),
        ("'Hello'.lowerAscii() + 'x'.upperAscii() + '  t '.trim()", "\"helloXt\""),
        ("'hello'.substring(1, 3) + 'hello'.charAt(4)", "\"elo\""),
        ("'hello'.substring(4, 9)", "error: index out of range: 9"),
        ("'aXbX'.replace('X', '-') + 'aXbX'.replace('X', '', 1)", "\"a-b-abX\""),
        ("'hello hello'.indexOf('lo') + 'hello hello'.lastIndexOf('lo')", "12"),
        (
            "'%s has %d of %.2f: %x, %s'.format([dyn('a'), 3, 1.5, 255, [1, 2]])",
            "\"a has 3 of 1.50: ff, [1, 2]\"",
        ),
        ("'a1b22'.findAll('[0-9]+')", "[\"1\",\"22\"]"),
        ("'a1b22'.find('[0-9]+')", "\"1\""),
        ("int('12') + int(3.9)", "15"),
        ("string(1.0) + string(true) + string(b'x')", "\"1truex\""),
        ("strings.quote('a\"b')", "\"\\\"a\\\\\\\"b\\\"\""),
        ("jsonpatch.escapeKey('a/b~c')", "\"a~1b~0c\""),
    ]);
}

#[test]
fn times_quantities_and_versions() {
    check(&[
        ("duration('1h30m').getMinutes()", "90"),
        ("string(duration('1500ms'))", "\"1.5s\""),
        ("timestamp('2026-01-02T03:04:05Z').getHours('+02:00')", "5"),
        ("timestamp('2026-01-02T03:04:05Z').getHours('Europe/Berlin')", "4"),
        ("timestamp('2026-07-02T03:04:05Z').getHours('Europe/Berlin')", "5"),
        ("timestamp('2026-01-02T03:04:05Z').getDate('America/New_York')", "1"),
        (
            "timestamp('2026-01-02T03:04:05Z').getHours('Nowhere/Land')",
            "error: unknown time zone Nowhere/Land",
        ),
        ("timestamp('2026-01-02T03:04:05Z') - timestamp('2026-01-01T03:04:05Z') == duration('24h')", "true"),
        ("timestamp('2026-01-02T03:04:05Z').getMonth()", "0"),
        ("string(timestamp('2026-01-02T03:04:05Z') + duration('1s'))", "\"2026-01-02T03:04:06Z\""),
        ("quantity('1.5Gi').isGreaterThan(quantity('1Gi'))", "true"),
        ("quantity('50k').add(quantity('20k')).asInteger()", "70000"),
        ("quantity('1').compareTo(quantity('2')) + quantity('-1').sign()", "-2"),
        (
            "isQuantity('x') || quantity('x') == quantity('1')",
            "error: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        ("semver('1.2.3').isLessThan(semver('1.10.0-rc.1')) && semver('v1', true).major() == 1", "true"),
        ("isSemver('1.2') || !isSemver('1.2.3-a.1+b')", "false"),
    ]);
}

#[test]
fn addresses_and_formats() {
    check(&[
        ("ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('10.0.0.01')", "true"),
        (
            "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsCIDR('11.0.0.0/16')",
            "true",
        ),
        ("string(cidr('10.1.2.3/8').masked())", "\"10.0.0.0/8\""),
        ("ip('fe80::1').isLinkLocalUnicast() && ip('8.8.8.8').isGlobalUnicast()", "true"),
        ("ip.isCanonical('2001:DB8::1')", "false"),
        (
            "url('https://a.example:8443/x y?q=1&q=2').getPort() + url('https://a.example/x').getHost()",
            "\"8443a.example\"",
        ),
        ("url('https://[::1]:80/').getHostname()", "\"::1\""),
        ("url('https://a.example/?q=1&q=2').getQuery()", "{\"q\":[\"1\",\"2\"]}"),
        ("isURL('not a url')", "false"),
        ("format.dns1123Label().validate('Bad').hasValue()", "true"),
        ("format.named('uuid').value().validate('8b1f5f10-6ac5-4a0f-8a4f-0123456789ab')", "none"),
        ("format.named('x').hasValue()", "false"),
    ]);
}

#[test]
fn faults_are_shown_where_they_are() {
    check(&[
        (
            "objekt.a",
            "ERROR: <input>:1:1: undeclared reference to 'objekt' (in container '')\n | objekt.a\n | ^",
        ),
        (
            "1 + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^",
        ),
        (
            "'a'.startsWith(1)",
            "ERROR: <input>:1:15: found no matching overload for 'startsWith' applied to 'string.(int)'\n | 'a'.startsWith(1)\n | ..............^",
        ),
        (
            "nothing()",
            "ERROR: <input>:1:8: undeclared reference to 'nothing' (in container '')\n | nothing()\n | .......^",
        ),
        ("1.a", "ERROR: <input>:1:2: type 'int' does not support field selection\n | 1.a\n | .^"),
        (
            "object.",
            "ERROR: <input>:1:8: Syntax error: mismatched input '<EOF>' expecting IDENTIFIER\n | object.\n | .......^",
        ),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument\n | duration('x')\n | .........^"),
        (
            "'a'.matches('(')",
            "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('(')\n | ............^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("has(object)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(object)\n | ....^"),
    ]);
}

/// An object type with one number, one text and one list of so many at most.
#[derive(Debug)]
struct Sample;

impl Shape for Sample {
    fn name(&self) -> &str {
        "Sample"
    }

    fn field(&self, name: &str) -> Option<(String, Type)> {
        let of = match name {
            "count" => Type::Int,
            "text" => Type::Text(100),
            "list" => Type::List(Arc::new(Type::Text(10)), 5),
            "endless" => Type::List(Arc::new(Type::Text(10)), ANY_LEN),
            "set" => Type::Set(Arc::new(Type::Int), 5),
            "since" => Type::Timestamp,
            _ => return None,
        };
        Some((name.into(), of))
    }
}

fn typed() -> Environment {
    Environment::default().with("self", Type::Object(Arc::new(Sample)))
}

#[test]
fn types_are_told_before_there_are_values() {
    let fault = |text: &str| {
        Program::compile(text, &typed()).map_err(|faulty| faulty.text.lines().next().map(str::to_owned))
    };
    let wrong = |text: &str, why: &str| {
        assert_eq!(fault(text).err().flatten().as_deref(), Some(&*format!("ERROR: <input>:{why}")), "{text}");
    };
    wrong("self.no", "1:5: undefined field 'no'");
    wrong("self.count.x", "1:11: type 'int' does not support field selection");
    wrong("self.text == 1", "1:11: found no matching overload for '_==_' applied to '(string, int)'");
    wrong("self.list.all(x, x)", "1:18: expected type 'bool' but found 'string'");
    wrong(
        "self.count.all(x, true)",
        "1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
    );
    let gives = |text: &str| Program::compile(text, &typed()).expect("good").gives().to_string();
    assert_eq!(gives("self.list.map(x, size(x))"), "list(int)");
    assert_eq!(gives("self.?text.orValue('')"), "string");
    assert_eq!(gives("{'a': [self.count]}"), "map(string, list(int))");
    assert_eq!(gives("self.count > 1 ? self.since : self.since + duration('1s')"), "timestamp");
    assert_eq!(gives("[]"), "list(dyn)");
    assert_eq!(gives("optional.of(self.text) == null"), "bool");
    wrong("self.text == null", "1:11: found no matching overload for '_==_' applied to '(string, null)'");
}

#[test]
fn costs_are_foreseen_and_bounded() {
    let cost = |text: &str| Program::compile(text, &typed()).expect("good").cost_max();
    assert!(cost("self.list.all(x, x == 'a')") < 100);
    assert_eq!(cost("self.endless.all(x, x == 'a')"), u64::MAX);
    assert!(cost("self.list.all(x, self.list.all(y, x == y))") > cost("self.list.all(x, x == 'a')") * 3);
    let endless = "lists.range(1000).all(a, lists.range(1000).all(b, lists.range(1000).all(c, c >= 0)))";
    let program = Program::compile(endless, &Environment::default()).expect("good");
    let mut budget = Budget::new(u64::MAX);
    let told = program.evaluate(&[], &mut budget).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(told, Err("operation cancelled: actual cost limit exceeded".into()));
    assert_eq!(budget.left(), u64::MAX - crate::EXPRESSION_COST_MAX);
}

#[test]
fn what_holds_itself_many_times_is_not_written_out() {
    let doubled = |inner: &str| {
        format!("{}[1]{}{inner}", "optional.of(".repeat(40), ").optMap(x, [x, x]).value()".repeat(40))
    };
    for (rest, wanted) in [
        ("", "list"),
        (" == dyn([1])", "false"),
        (".map(x, '%s'.format([x]))", "error: operation cancelled: actual cost limit exceeded"),
        (".map(x, string(dyn(x)))", "error: no such overload"),
        (".map(x, {'a': 1}[dyn(x)])", "error: no such key: list"),
    ] {
        assert_eq!(told(&doubled(rest)), wanted, "{rest}");
    }
}

#[test]
fn long_expressions_are_checked_in_no_time_that_anybody_notices() {
    let many = vec!["1 + 1"; 12_000].join(", ");
    assert!(Program::compile(&format!("[{many}].size() > 1"), &Environment::default()).is_ok());
    let wrong = vec!["nothing"; 10_000].join(", ");
    let told = Program::compile(&format!("[{wrong}]"), &Environment::default())
        .expect_err("nothing is not there")
        .text;
    assert_eq!(told.matches("undeclared reference").count(), 20);
}

#[test]
fn sets_are_equal_in_any_order() {
    let object = json!({"set": [1, 2], "list": ["a", "b"], "since": "2026-01-01T00:00:00Z"});
    let of = Type::Object(Arc::new(Sample));
    let check = |text: &str| {
        let program = Program::compile(text, &typed()).expect("good");
        let value = program
            .evaluate(&[("self", Value::read(&object, &of))], &mut Budget::new(1000))
            .expect("a value");
        assert!(matches!(value, Value::Bool(true)), "{text} is {value:?}");
    };
    check("self.set == [2, 1]");
    check("(self.set + [2, 3]).size() == 3");
    check("self.list != ['b', 'a']");
    check("self.since.getFullYear() == 2026");
    check("!has(self.text)");
}

#[test]
fn depth_and_length_are_bounded() {
    let deep = |text: String| Program::compile(&text, &Environment::default()).is_err();
    assert!(deep(format!("{}1{}", "(".repeat(1000), ")".repeat(1000))));
    assert!(deep(format!("{}1{}", "[".repeat(1000), "]".repeat(1000))));
    assert!(deep(vec!["1"; 1000].join(" + ")));
    assert!(deep(format!("a{}", ".b".repeat(1000))));
    assert!(deep("1 ".repeat(100_000)));
    assert!(!deep(vec!["true"; 1000].join(" && ")));
    assert!(!deep(format!("{}1", "- ".repeat(10_000))));
    let deepest = [
        format!("{}1{}", "[".repeat(95), "]".repeat(95)),
        format!("{}true{}", "[true].all(x, ".repeat(95), ")".repeat(95)),
        vec!["1"; 249].join(" + "),
    ];
    for text in deepest {
        let program = Program::compile(&text, &Environment::default()).expect("good");
        assert!(program.evaluate(&[], &mut Budget::new(1_000_000)).is_ok());
    }
}
