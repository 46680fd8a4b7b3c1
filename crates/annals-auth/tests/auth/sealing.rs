//! From a client's body to what a record holds.

use annals_auth::{CommandSealer, Opener, Sealed, SubjectKeys};
use annals_domain::catalog::AnyCommand;
use annals_domain::{DataSubject, Precondition};
use annals_record::Version;
use serde_json::{Value, json};

use crate::keys::{World, subject};
use crate::people::{catalog, key, person};

const BODY: &str =
    r#"{"name":"Ada","email":"ada@example.org","aliases":["Countess"],"flag":{"erased":true},"age":36}"#;

fn parse(name: &str, body: &str) -> AnyCommand {
    person(&catalog())
        .parse(&key("1"), name, body.as_bytes())
        .unwrap()
}

async fn seal_as(
    sealer: &CommandSealer,
    name: &str,
    body: &str,
    sub: &str,
    if_match: &Precondition,
) -> Sealed {
    let command = parse(name, body);
    sealer
        .seal(person(&catalog()), &key("1"), command, sub, if_match)
        .await
        .unwrap()
}

async fn seal(sealer: &CommandSealer, name: &str, body: &str) -> Sealed {
    seal_as(sealer, name, body, "ada", &Precondition::None).await
}

fn json_of(sealed: &Sealed) -> Value {
    serde_json::from_slice(&sealed.data).unwrap()
}

async fn opened(keys: SubjectKeys, sealed: &Sealed) -> Value {
    let mut documents = [json_of(sealed)];
    Opener::new(keys).open_in(&mut documents).await.unwrap();
    let [document] = documents;
    document
}

#[tokio::test]
async fn a_command_without_personal_fields_is_its_canonical_form_and_needs_no_postgres() {
    let Some(world) = World::new().await else { return };
    let sealer = CommandSealer::open(world.keys()).await.unwrap();
    world.pool.close().await;
    let sealed = seal(&sealer, "note", r#"{ "text": "é\u0041", "amount": 1.0e2 }"#).await;
    assert_eq!(sealed.data, r#"{"amount":100,"text":"éA"}"#);
    assert_eq!(sealed.command.canonical().unwrap(), sealed.data);
    let again = seal(&sealer, "note", r#"{"amount":100,"text":"éA"}"#).await;
    assert_eq!(
        again.fingerprint, sealed.fingerprint,
        "another spelling of the same body"
    );
}

#[tokio::test]
async fn a_fingerprint_tells_callers_commands_preconditions_and_bodies_apart() {
    let Some(world) = World::new().await else { return };
    let sealer = CommandSealer::open(world.keys()).await.unwrap();
    let body = r#"{"text":"a","amount":1}"#;
    let mut found = vec![
        seal(&sealer, "note", body).await.fingerprint,
        seal(&sealer, "note", r#"{"text":"b","amount":1}"#)
            .await
            .fingerprint,
        seal_as(&sealer, "note", body, "bob", &Precondition::None)
            .await
            .fingerprint,
        seal(&sealer, "register", BODY).await.fingerprint,
    ];
    for if_match in [
        Precondition::Version(Version::new(3)),
        Precondition::Exists,
        Precondition::Absent,
    ] {
        found.push(seal_as(&sealer, "note", body, "ada", &if_match).await.fingerprint);
    }
    let count = found.len();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), count);
    // The app's key is one for all nodes and restarts.
    let other = CommandSealer::open(world.keys()).await.unwrap();
    let again = seal(&other, "note", body).await.fingerprint;
    assert_eq!(again, seal(&sealer, "note", body).await.fingerprint);
}

#[tokio::test]
async fn personal_fields_are_sealed_everywhere_and_a_repeat_has_the_same_fingerprint() {
    let Some(world) = World::new().await else { return };
    let sealer = CommandSealer::open(world.keys()).await.unwrap();
    let (one, two) = (
        seal(&sealer, "register", BODY).await,
        seal(&sealer, "register", BODY).await,
    );
    assert_eq!(one.fingerprint, two.fingerprint);
    assert_ne!(one.data, two.data, "each sealing is new");
    let text = String::from_utf8(one.data.to_vec()).unwrap();
    for plain in ["Ada", "example", "Countess"] {
        assert!(!text.contains(plain));
        assert!(!format!("{one:?}").contains(plain));
    }
    // What the engine writes is what was sealed, byte for byte, and in RFC 8785 form.
    assert_eq!(one.command.canonical().unwrap(), one.data);
    assert_eq!(
        serde_json_canonicalizer::to_vec(&json_of(&one)).unwrap(),
        one.data
    );
    let mut expected: Value = serde_json::from_str(BODY).unwrap();
    expected["flag"] = Value::Null; // nobody can tell it from an erased field once it is stored
    assert_eq!(opened(world.keys(), &one).await, expected);
    let changed = BODY.replace("Countess", "Count");
    assert_ne!(
        seal(&sealer, "register", &changed).await.fingerprint,
        one.fingerprint
    );
}

#[tokio::test]
async fn the_fingerprint_of_personal_data_is_not_made_with_the_apps_key() {
    let Some(world) = World::new().await else { return };
    let sealer = CommandSealer::open(world.keys()).await.unwrap();
    let people = catalog();
    let mut found = Vec::new();
    for name in ["1", "2"] {
        let command = person(&people)
            .parse(&key(name), "register", BODY.as_bytes())
            .unwrap();
        let sealed = sealer
            .seal(person(&people), &key(name), command, "ada", &Precondition::None)
            .await
            .unwrap();
        found.push(sealed.fingerprint);
    }
    assert_ne!(found[0], found[1], "two data subjects, two keys");
}

#[tokio::test]
async fn after_an_erasure_commands_are_still_taken_without_their_personal_fields() {
    let Some(world) = World::new().await else { return };
    let keys = world.keys();
    let sealer = CommandSealer::open(keys.clone()).await.unwrap();
    let before = seal(&sealer, "register", BODY).await;
    keys.destroy(&subject("person-1")).await.unwrap();
    let after = seal(&sealer, "register", BODY).await;
    assert_ne!(after.fingerprint, before.fingerprint);
    let gone = json!({"erased": true});
    assert_eq!(
        json_of(&after),
        json!({"name": gone, "email": gone, "aliases": [gone], "flag": {"erased": true}, "age": 36})
    );
    assert_eq!(after.command.canonical().unwrap(), after.data);
    // Personal fields do not count any more, all others do.
    let renamed = BODY.replace("Ada", "Eve").replace("Countess", "Spy");
    assert_eq!(
        seal(&sealer, "register", &renamed).await.fingerprint,
        after.fingerprint
    );
    for changed in [BODY.replace("36", "37"), BODY.replace("true", "false")] {
        assert_ne!(
            seal(&sealer, "register", &changed).await.fingerprint,
            after.fingerprint
        );
    }
    assert_eq!(opened(keys, &before).await["name"], Value::Null);
}

#[tokio::test]
async fn a_command_that_carries_sealed_values_keeps_them() {
    let Some(world) = World::new().await else { return };
    let sealer = CommandSealer::open(world.keys()).await.unwrap();
    let first = seal(&sealer, "register", BODY).await;
    // A process manager copies what it read from a record.
    let people = catalog();
    let copy = || {
        person(&people)
            .read_stored(&key("1"), "register", &first.data)
            .unwrap()
    };
    let mut copies = Vec::new();
    for _ in 0..2 {
        let sealed = sealer
            .seal(
                person(&people),
                &key("1"),
                copy(),
                "process:x",
                &Precondition::None,
            )
            .await
            .unwrap();
        assert_eq!(sealed.data, first.data);
        copies.push(sealed.fingerprint);
    }
    assert_eq!(copies[0], copies[1]);
}

#[tokio::test]
async fn without_postgres_a_personal_command_of_a_new_data_subject_is_unavailable() {
    let Some(world) = World::new().await else { return };
    let sealer = CommandSealer::open(world.keys()).await.unwrap();
    world.pool.close().await;
    let sealed = sealer
        .seal(
            person(&catalog()),
            &key("1"),
            parse("register", BODY),
            "ada",
            &Precondition::None,
        )
        .await;
    let Err(annals_auth::SealError::Key(error)) = sealed else {
        panic!("sealed without a key")
    };
    assert!(!error.to_string().contains("Ada"));
    assert_eq!(DataSubject::new("person", &key("1")), subject("person-1"));
}
