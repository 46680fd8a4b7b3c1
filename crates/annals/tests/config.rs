//! Settings: which layer wins, what is refused, and the example file.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use annals::config::{Layers, Section, SectionInfo, explain, load};

annals::section! {
    /// A domain's own settings.
    pub struct Shop in "shop" {
        /// How long a basket is kept, in seconds.
        basket_s: u64 = 900,
        /// Where the warehouse answers.
        warehouse_url: Option<String> = None,
    }
}

fn layers(file: &str, environment: &[(&str, &str)]) -> Layers {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Layers {
        file: Some(("annals.toml".to_owned(), file.to_owned())),
        environment: environment.iter().map(own).collect(),
        ..Layers::default()
    }
}

fn shop() -> [SectionInfo; 1] {
    [SectionInfo::of::<Shop>()]
}

fn refused(file: &str, environment: &[(&str, &str)]) -> String {
    load(&layers(file, environment), &shop()).unwrap_err().to_string()
}

#[test]
fn each_layer_wins_over_the_one_before() {
    let file = "[log]\nshards = 8\nkind = \"kafka\"\nbrokers = \"file:1\"\ntopic = \"t\"";
    let environment = [
        ("ANNALS_KAFKA_BROKERS", "short:1"),
        ("ANNALS__LOG__BROKERS", "long:1"),
        ("ANNALS__LOG__KIND", "postgres"),
        (
            "ANNALS__HTTP__CORS_ORIGINS",
            "https://a.example, https://b.example",
        ),
    ];
    let layers = layers(file, &environment)
        .base("log.shards", "dev", 2)
        .base("log.producers", "dev", 3)
        .flag("log.kind", "--log", Some("kafka"))
        .flag("log.topic", "--topic", None::<&str>);
    let settings = load(&layers, &[]).unwrap();
    assert_eq!(settings.log.shards, 8, "the file wins over other defaults");
    assert_eq!(settings.log.producers, 3, "another default wins over the default");
    assert_eq!(settings.log.kind, "kafka", "a flag wins over the environment");
    assert_eq!(
        settings.log.brokers.as_deref(),
        Some("long:1"),
        "a long name wins over a short one"
    );
    assert_eq!(settings.log.topic, "t", "a flag that was not given says nothing");
    assert_eq!(
        settings.http.cors_origins,
        ["https://a.example", "https://b.example"]
    );
    assert_eq!(
        settings.command.mailbox, 1_024,
        "what nobody mentions is the default"
    );
}

#[test]
fn sizes_come_as_numbers_and_with_units() {
    let file = "[log]\nrecord_bytes = 1000\n[command]\ncache_bytes = \"1 GiB\"";
    let settings = load(&layers(file, &[("ANNALS__COMMAND__TAIL_BYTES", "5 MiB")]), &[]).unwrap();
    assert_eq!(settings.log.record_bytes.0, 1_000);
    assert_eq!(settings.command.cache_bytes.0, 1 << 30);
    assert_eq!(settings.command.tail_bytes.0, 5 << 20);
}

#[test]
fn unknown_keys_are_errors_that_name_the_nearest() {
    let typo = refused("[log]\nshard = 8", &[]);
    assert!(
        typo.contains("annals.toml") && typo.contains("`log.shard`") && typo.contains("`log.shards`"),
        "{typo}"
    );
    let section = refused("[lok]\nshards = 8", &[]);
    assert!(
        section.contains("`lok`") && section.contains("`log`"),
        "{section}"
    );
    let variable = refused("", &[("ANNALS__LOG__KND", "kafka")]);
    assert!(
        variable.contains("ANNALS__LOG__KND") && variable.contains("`log.kind`"),
        "{variable}"
    );
    let short = refused("", &[("ANNALS_DATABSE_URL", "x")]);
    assert!(short.contains("ANNALS_DATABASE_URL"), "{short}");
    let not_a_section = refused("log = 3", &[]);
    assert!(not_a_section.contains("[log]"), "{not_a_section}");
    load(
        &layers("", &[("ANNALS_TEST_KAFKA", "x"), ("ANNALS_URL", "y")]),
        &[],
    )
    .unwrap();
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    let wrong = refused("[log]\nshards = \"many\"", &[]);
    assert!(
        wrong.starts_with("log.shards (annals.toml): ") && wrong.contains("many"),
        "{wrong}"
    );
    let size = refused("", &[("ANNALS__COMMAND__CACHE_BYTES", "much")]);
    assert!(size.contains("command") && size.contains("much"), "{size}");
}

#[test]
fn secrets_may_come_from_files_and_print_as_stars() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    std::fs::write(&file, "postgres://u:hunter2@h/d\n").unwrap();
    let path = file.to_str().unwrap();
    let from_environment = load(&layers("", &[("ANNALS__DATABASE__COMMAND_FILE", path)]), &[]).unwrap();
    assert_eq!(
        from_environment.database.command.as_ref().unwrap().reveal(),
        "postgres://u:hunter2@h/d"
    );
    let from_file = load(&layers(&format!("[database]\nquery_file = \"{path}\""), &[]), &[]).unwrap();
    assert_eq!(
        from_file.database.query.as_ref().unwrap().reveal(),
        "postgres://u:hunter2@h/d"
    );
    let short = load(&layers("", &[("ANNALS_DATABASE_URL_FILE", path)]), &[]).unwrap();
    assert_eq!(
        short.database.url.as_ref().unwrap().reveal(),
        "postgres://u:hunter2@h/d"
    );
    let printed = format!("{short:?}{from_file:?}{from_environment:?}");
    assert!(!printed.contains("hunter2") && printed.contains("********"));
    let missing = refused("", &[("ANNALS__DATABASE__COMMAND_FILE", "/nowhere/url")]);
    assert!(missing.contains("/nowhere/url"), "{missing}");
    let no_secret = refused("", &[("ANNALS__LOG__KIND_FILE", path)]);
    assert!(no_secret.contains("`log.kind`"), "{no_secret}");
}

#[test]
fn a_domains_own_section_is_like_the_others() {
    let layers = layers(
        "[shop]\nwarehouse_url = \"http://w\"",
        &[("ANNALS__SHOP__BASKET_S", "60")],
    );
    let shop: Shop = load(&layers, &shop()).unwrap().section().unwrap();
    assert_eq!(
        (shop.basket_s, shop.warehouse_url.as_deref()),
        (60, Some("http://w"))
    );
    assert!(refused("[shop]\nbasket = 1", &[]).contains("`shop.basket_s`"));
    assert!(
        load(&Layers::default(), &[]).unwrap().section::<Shop>().is_err(),
        "a section that was not announced"
    );
}

#[test]
fn the_example_is_the_defaults() {
    let mut sections = load::machinery();
    sections.push(SectionInfo::of::<Shop>());
    let example = explain::example(&sections);
    let parsed = load(&layers(&example, &[]), &shop()).unwrap();
    let defaults = load(&Layers::default(), &shop()).unwrap();
    assert_eq!(format!("{:?}", parsed.command), format!("{:?}", defaults.command));
    assert_eq!(format!("{:?}", parsed.http), format!("{:?}", defaults.http));
    assert_eq!(format!("{:?}", parsed.log), format!("{:?}", defaults.log));
    assert_eq!(format!("{:?}", parsed.auth), format!("{:?}", defaults.auth));
    for section in &sections {
        for key in section.keys {
            assert!(
                !key.doc.is_empty(),
                "{}.{} has no documentation",
                section.name,
                key.name
            );
            let line = format!("{} = ", key.name);
            assert!(
                example.contains(&line),
                "{}.{} is not in the example",
                section.name,
                key.name
            );
        }
    }
    assert_eq!(Shop::KEYS.len(), 2);
}
