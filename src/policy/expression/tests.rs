//! Expressions: what they mean, and what is said of those that are none.

use super::*;
use proptest::prelude::*;

fn holds(source: &str) -> bool {
    let labels = Labels::parse("env=prod,team=blue,owner=alice").expect("labels");
    let traits = Traits::from([
        ("team".to_owned(), vec!["blue".to_owned(), "db-red".to_owned()]),
        ("empty".to_owned(), Vec::new()),
    ]);
    let person = PersonName::new("alice").expect("a name");
    let facts = Facts {
        labels: &labels,
        person: &person,
        traits: &traits,
    };
    Expression::parse(source)
        .unwrap_or_else(|e| panic!("{source}: {e}"))
        .holds(facts)
}

#[test]
fn an_expression_means_what_it_says() {
    for (source, expected) in [
        (r#"labels["env"] == "prod""#, true),
        (r#"labels["env"] == "Prod""#, false),
        (r#"labels["env"] != "dev""#, true),
        (r#"labels["none"] == """#, true),
        (r#"labels["none"] != "x""#, true),
        (r#""prod" == labels['env']"#, true),
        (r#"labels["owner"] == user.metadata.name"#, true),
        (r#"contains(user.spec.traits["team"], labels["team"])"#, true),
        (r#"contains(user.spec.traits["team"], "green")"#, false),
        (r#"contains(user.spec.traits["none"], "")"#, false),
        (r#"contains(user.spec.traits["empty"], "")"#, false),
        (r#"regexp.match(labels["env"], "^pr")"#, true),
        (r#"regexp.match("^pr", labels["env"])"#, true),
        (r#"regexp.match(labels["env"], "^pr$")"#, false),
        (r#"regexp.match(user.spec.traits["team"], "^db-")"#, true),
        (r#"regexp.match(user.spec.traits["none"], ".*")"#, false),
        (r#"!(labels["env"] == "prod")"#, false),
        (r#"!!contains(user.spec.traits["team"], "blue")"#, true),
        // `&&` binds closer than `||`.
        (r#""a" == "a" || "a" == "b" && "a" == "c""#, true),
        (r#"("a" == "a" || "a" == "b") && "a" == "c""#, false),
        (r#"!labels["a"] == "b""#, true),
        ("\n labels [ `env` ]\t==\n 'prod' ", true),
        (
            r#""a\"\\\n" == `a"\
`"#,
            true,
        ),
    ] {
        assert_eq!(holds(source), expected, "{source}");
    }
}

#[test]
fn what_is_no_expression_is_said_with_its_place() {
    for (source, at, why) in [
        ("", 1, "is expected at the end"),
        (r#"labels["env"]"#, 14, "== or != is expected at the end"),
        (r#"labels["env"] = "x""#, 15, "== or != is expected before"),
        (r#"labels["env"] == "x" &"#, 22, "&&, || or the end is expected"),
        (r#"labels.env == "x""#, 1, "is expected before"),
        (r#"labels["env" == "x""#, 14, "] is expected"),
        (r#"labels["env"] == x"#, 18, "a text in quotes is expected"),
        (r#"user.spec.traits["t"] == "x""#, 1, "a trait is a list"),
        (r#"contains(labels["t"], "x")"#, 10, "is a list"),
        (r#"contains(user.spec.traits["t"] "x")"#, 32, ", is expected"),
        (r#"contains(user.spec.traits["t"], "x""#, 36, ") is expected at the end"),
        (r#"regexp.match(labels["é"], "(")"#, 27, "unclosed group"),
        (r#"regexp.match("a", "b")"#, 14, "not two texts"),
        (r#"regexp.match(labels["a"], labels["b"])"#, 27, "a text in quotes"),
        (r#"labels["env] == 1"#, 8, "is not closed"),
        (r#""a\d" == "b""#, 3, "a backslash"),
        (r#"labels["a"] == "b" labels"#, 20, "&&, || or the end"),
        (r#"external.groups == "b""#, 1, "is expected before"),
    ] {
        let error = Expression::parse(source).expect_err(source);
        assert_eq!(error.at, at, "{source}: {error}");
        assert!(error.reason.contains(why), "{source}: {error}");
    }
}

#[test]
fn an_expression_is_bounded_in_depth_and_size() {
    let nested = |depth: usize| format!("{}\"a\" == \"a\"{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Expression::parse(&nested(31)).is_ok());
    assert!(
        Expression::parse(&nested(32))
            .expect_err("deep")
            .reason
            .contains("nested deeper")
    );
    assert!(Expression::parse(&nested(2000)).is_err());
    assert!(Expression::parse(&"!".repeat(4000)).is_err());
    let wide = vec![r#"labels["a"] == "b""#; 400].join(" || ");
    assert!(
        Expression::parse(&wide)
            .expect_err("long")
            .reason
            .contains("4096 bytes")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(pieces in prop::collection::vec(prop_oneof![
        Just("labels"), Just("["), Just("]"), Just("\"a\""), Just("("), Just(")"), Just("!"), Just("=="), Just("!="),
        Just("&&"), Just("||"), Just("contains("), Just("regexp.match("), Just(","), Just("user.spec.traits"), Just("é"),
        Just(" "), Just("\\"), Just("'"), Just("`"),
    ], 0..24), any in ".{0,12}") {
        let _ = Expression::parse(&pieces.concat());
        let _ = Expression::parse(&any);
    }
}
