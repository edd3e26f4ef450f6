//! Names, subjects and the settings of streams, without a server. With one: `tests/audit_sinks/jetstream.rs`.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::settings::Settings;
use super::subject::{Named, Subjects, covers, named};

#[test]
fn names_are_subjects() {
    let named = |name: &str| named("a.b", name).map_err(|error| error.kind());
    let checkpoint = Named::Checkpoint { subject: "a.b.edge~1.c-1.checkpoints".to_owned(), seq: 42 };
    assert_eq!(named("edge.1/c-1/checkpoint-000000000042.jsonl"), Ok(("edge.1".to_owned(), checkpoint)));
    let file = Named::File { subject: "a.b.n.c.segments.audit-0000000007".to_owned() };
    assert_eq!(named("n/c/audit-0000000007.jsonl"), Ok(("n".to_owned(), file)));
    for wrong in [
        "",
        "n",
        "n/c",
        "n/c/audit",
        "n/c/.jsonl",
        "n/c.d/a.jsonl",
        "n/c/a.b.jsonl",
        "/c/a.jsonl",
        "n*/c/a.jsonl",
        "n/>/a.jsonl",
    ] {
        assert_eq!(named(wrong), Err(std::io::ErrorKind::InvalidInput), "{wrong}");
    }
}

#[test]
fn subjects_of_one_node_are_of_no_other() {
    let all = ["edge-1", "edge.1", "edge", "edge-10"].map(|node| Subjects::new("a", node));
    for (n, one) in all.iter().enumerate() {
        for (m, other) in all.iter().enumerate() {
            assert_eq!(covers(&one.all(), &other.checkpoints()), n == m);
            assert_eq!(other.chain(&one.checkpoints().replace('*', "c")), (n == m).then_some("c"));
        }
    }
    assert_eq!(all[0].chain("a.edge-1.c.d.checkpoints"), None);
    assert_eq!(all[0].file("a.edge-1.c.segments.audit-1"), Some(("c", "audit-1.jsonl".to_owned())));
    for strange in ["a.edge-1.c.segments", "a.edge-1.c.segments.", "a.edge-1.c.segments.a.b", "a.edge-1.c.segments.a/b"]
    {
        assert_eq!(all[0].file(strange), None, "{strange}");
    }
}

#[test]
fn a_filter_covers_what_it_stands_for() {
    for (filter, subject) in
        [("a.>", "a.b"), ("a.>", "a.*.c"), (">", "a"), ("a.*.c", "a.*.c"), ("a.*.c", "a.b.c"), ("a.b.>", "a.b.>")]
    {
        assert!(covers(filter, subject), "{filter} {subject}");
    }
    for (filter, subject) in [
        ("a.>", "a"),
        ("a.b", "a.*"),
        ("a.*", "a.>"),
        ("a.b.c", "a.b"),
        ("a.b", "a.b.c"),
        ("b.>", "a.b"),
        ("a.b.*", "a.*.*"),
        ("", "a"),
    ] {
        assert!(!covers(filter, subject), "{filter} {subject}");
    }
}

fn good() -> Value {
    json!({
        "name": "AUDIT", "subjects": ["other", "tableside.audit.>"], "retention": "limits", "max_consumers": -1, "max_msgs": -1,
        "max_bytes": 1_000_000, "max_age": 0, "max_msgs_per_subject": -1, "max_msg_size": -1, "discard": "new", "storage": "file",
        "num_replicas": 3, "duplicate_window": 120_000_000_000_u64, "allow_direct": true, "mirror_direct": false, "sealed": false,
        "deny_delete": true, "deny_purge": true, "allow_rollup_hdrs": false, "sources": [],
    })
}

fn check(config: Value) -> Result<(), String> {
    let settings: Settings = serde_json::from_value(config).unwrap();
    let checked = settings.check("AUDIT", "tableside.audit", &Subjects::new("tableside.audit", "edge.1"), true);
    checked.map_err(|error| error.to_string())
}

#[test]
fn each_setting_by_which_something_could_go_is_refused() {
    assert_eq!(check(good()), Ok(()));
    for (field, wrong) in [
        ("storage", json!("memory")),
        ("storage", Value::Null),
        ("retention", json!("interest")),
        ("retention", json!("workqueue")),
        ("discard", json!("old")),
        ("persist_mode", json!("async")),
        ("deny_delete", json!(false)),
        ("deny_purge", json!(false)),
        ("allow_rollup_hdrs", json!(true)),
        ("allow_msg_ttl", json!(true)),
        ("allow_msg_counter", json!(true)),
        ("allow_msg_schedules", json!(true)),
        ("no_ack", json!(true)),
        ("sealed", json!(true)),
        ("max_age", json!(1)),
        ("max_msgs", json!(1_000_000)),
        ("max_msgs_per_subject", json!(1)),
        ("max_msg_size", json!(1000)),
        ("mirror", json!({ "name": "OTHER" })),
        ("sources", json!([{ "name": "OTHER" }])),
        ("subject_transform", json!({ "src": "a.>", "dest": "b.>" })),
        ("subjects", json!(["tableside.audit.edge~1.*.checkpoints"])),
        ("subjects", json!(["tableside.audit.edge-1.>"])),
    ] {
        let mut config = good();
        match wrong {
            Value::Null => drop(config.as_object_mut().unwrap().remove(field)),
            wrong => config[field] = wrong,
        }
        let said = check(config).unwrap_err();
        assert!(
            said.contains(&format!("its {field} is ")) && said.contains("`nats stream add AUDIT --subjects="),
            "{said}"
        );
    }
    for (field, fine) in [
        ("max_msgs", json!(0)),
        ("max_msg_size", json!(1 << 20)),
        ("persist_mode", json!("default")),
        ("subjects", json!(["tableside.audit.edge~1.>"])),
        ("republish", json!({ "src": ">", "dest": "copy.>" })),
    ] {
        let mut config = good();
        config[field] = fine;
        assert_eq!(check(config), Ok(()), "{field}");
    }
}

proptest! {
    #[test]
    fn a_name_has_one_subject_and_the_subject_its_name(
        node in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", chain in "[0-9a-f]{16}", number in 0..10_000_000_000_u64,
    ) {
        let file = format!("audit-{number:010}.jsonl");
        let (of, named) = named("p", &format!("{node}/{chain}/{file}")).unwrap();
        let Named::File { subject } = named else { panic!("{named:?}") };
        let subjects = Subjects::new("p", &node);
        prop_assert_eq!(of, node);
        prop_assert!(covers(&subjects.segments(), &subject) && !covers(&subjects.checkpoints(), &subject));
        prop_assert_eq!(subjects.file(&subject), Some((chain.as_str(), file)));
    }

    #[test]
    fn no_text_panics(name in "[a-z0-9/.~*>-]{0,40}", other: String) {
        for text in [&name, &other] {
            let _ = named("p", text);
            let subjects = Subjects::new("p", "n");
            let of = format!("p.n.{text}");
            let _ = (subjects.chain(&of), subjects.file(&of), covers(text, &of), covers(&of, text));
        }
    }

    #[test]
    fn what_no_filter_names_is_not_covered(filter in "([ab*]\\.){0,3}([ab*]|>)", subject in "[ab](\\.[ab]){0,4}") {
        let (parts, of): (Vec<&str>, Vec<&str>) = (subject.split('.').collect(), filter.split('.').collect());
        let matches = |wanted: &[&str]| wanted.iter().zip(&parts).all(|(wanted, part)| *wanted == "*" || wanted == part);
        let expected = match of.split_last() {
            Some((&">", rest)) => parts.len() > rest.len() && matches(rest),
            _ => parts.len() == of.len() && matches(&of),
        };
        prop_assert_eq!(covers(&filter, &subject), expected);
    }
}
