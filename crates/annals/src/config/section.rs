//! A section of the configuration: a struct whose fields are its keys, made by [`section!`](crate::section).

/// A section: its keys with defaults and documentation. Made by [`section!`](crate::section).
pub trait Section: Default + serde::Serialize {
    /// Its name in the file and, in capitals, in the environment.
    const NAME: &'static str;
    /// Every key with the lines of its documentation.
    const KEYS: &'static [KeyInfo];
}

/// What is known of a key.
#[derive(Debug, Clone, Copy)]
pub struct KeyInfo {
    /// Its name in its section.
    pub name: &'static str,
    /// What it means, line by line, each with a space in front.
    pub doc: &'static [&'static str],
    /// The type as the source code has it: tells secrets and lists.
    pub type_name: &'static str,
}

impl KeyInfo {
    /// Whether it prints as stars, and may come from a file.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.type_name.contains("Secret")
    }

    /// Whether it is a list: in the environment with commas.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.type_name.starts_with("Vec")
    }
}

/// What is known of a section.
#[derive(Debug, Clone)]
pub struct SectionInfo {
    /// Its name.
    pub name: &'static str,
    /// Its keys.
    pub keys: &'static [KeyInfo],
    /// The defaults; null: no value.
    pub defaults: serde_json::Map<String, serde_json::Value>,
}

impl SectionInfo {
    /// Of a section.
    #[must_use]
    pub fn of<S: Section>() -> Self {
        let defaults = match serde_json::to_value(S::default()) {
            Ok(serde_json::Value::Object(defaults)) => defaults,
            // `section!` makes structs of plain values only.
            _ => serde_json::Map::new(),
        };
        Self {
            name: S::NAME,
            keys: S::KEYS,
            defaults,
        }
    }
}

/// Declares a section of the configuration.
///
/// ```
/// annals::section! {
///     /// The shop's own settings.
///     pub struct Shop in "shop" {
///         /// How long a basket is kept, in seconds.
///         basket_s: u64 = 900,
///         /// Where the warehouse answers.
///         warehouse_url: Option<String> = None,
///     }
/// }
/// ```
#[macro_export]
macro_rules! section {
    ($(#[$meta:meta])* pub struct $name:ident in $section:literal {
        $( $(#[doc = $doc:literal])* $field:ident : $type:ty = $default:expr ),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $( $(#[doc = $doc])* pub $field: $type ),* }

        impl ::std::default::Default for $name {
            fn default() -> Self {
                Self { $( $field: $default ),* }
            }
        }

        impl $crate::config::Section for $name {
            const NAME: &'static str = $section;
            const KEYS: &'static [$crate::config::KeyInfo] = &[ $( $crate::config::KeyInfo {
                name: stringify!($field),
                doc: &[ $( $doc ),* ],
                type_name: stringify!($type),
            } ),* ];
        }
    };
}
