//! Types of keys in three lines: a UUID, or a text of the grammar of stream keys.
//!
//! Both macros make a newtype that is the same everywhere: as a stream's key, in the data of commands and
//! events, as a process's id, in a schema, and as the owner of what is somebody's ([`Owner`](crate::Owner)).

/// Makes a key type around a UUID of any version.
///
/// It reads the hyphenated form in either case and writes it in lower case, so that a key has one stream. The
/// server can make such a key.
///
/// ```
/// annals_domain::uuid_key!(
///     /// The id of an order.
///     pub struct OrderId;
/// );
/// let id: OrderId = serde_json::from_str(r#""0192F1C0-0000-7000-8000-000000000001""#).unwrap();
/// assert_eq!(id.to_string(), "0192f1c0-0000-7000-8000-000000000001");
/// ```
///
/// **Source:** RFC 9562, section 4, for the text form.
#[macro_export]
macro_rules! uuid_key {
    ($(#[$meta:meta])* $vis:vis struct $name:ident;) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis struct $name($crate::__private::uuid::Uuid);

        #[allow(dead_code)]
        impl $name {
            /// The id around this UUID.
            $vis const fn new(uuid: $crate::__private::uuid::Uuid) -> Self {
                Self(uuid)
            }
            /// The bare UUID.
            $vis const fn get(self) -> $crate::__private::uuid::Uuid {
                self.0
            }
        }

        impl $crate::AggregateKey for $name {
            fn parse(text: &str) -> ::core::result::Result<Self, $crate::InvalidKey> {
                $crate::__private::read_uuid(text).map(Self)
            }
            fn to_key(&self) -> $crate::__private::annals_record::Key {
                $crate::__private::uuid_to_key(self.0)
            }
            fn made_from(uuid: $crate::__private::uuid::Uuid) -> ::core::option::Option<Self> {
                ::core::option::Option::Some(Self(uuid))
            }
            fn schema() -> $crate::__private::schemars::Schema {
                $crate::__private::uuid_schema()
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Display::fmt(self.0.as_hyphenated(), f)
            }
        }

        $crate::__key_as_text!($name);
    };
}

/// Makes a key type around a text: 1 to `max` (at most 128) of `A-Z a-z 0-9 . _ ~ -`.
///
/// ```
/// annals_domain::text_key!(
///     /// A stock keeping unit.
///     pub struct Sku(max = 64);
/// );
/// assert!(serde_json::from_str::<Sku>(r#""P000001""#).is_ok());
/// assert!(serde_json::from_str::<Sku>(r#""P 1""#).is_err());
/// ```
#[macro_export]
macro_rules! text_key {
    ($(#[$meta:meta])* $vis:vis struct $name:ident(max = $max:literal);) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis struct $name($crate::__private::annals_record::Key);

        const _: () = ::core::assert!(
            1 <= $max && $max <= $crate::__private::annals_record::Key::MAX_BYTES,
            "a key has 1 to 128 characters"
        );

        #[allow(dead_code)]
        impl $name {
            /// The text.
            $vis fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl $crate::AggregateKey for $name {
            fn parse(text: &str) -> ::core::result::Result<Self, $crate::InvalidKey> {
                $crate::__private::read_text_key(
                    text,
                    $max,
                    ::core::concat!("1 to ", $max, " of A-Z, a-z, 0-9, . _ ~ and -"),
                )
                .map(Self)
            }
            fn to_key(&self) -> $crate::__private::annals_record::Key {
                ::core::clone::Clone::clone(&self.0)
            }
            fn schema() -> $crate::__private::schemars::Schema {
                $crate::__private::text_key_schema($max)
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Display::fmt(&self.0, f)
            }
        }

        $crate::__key_as_text!($name);
    };
}

/// What both kinds of keys share: text in JSON, in schemas and in debug output.
#[doc(hidden)]
#[macro_export]
macro_rules! __key_as_text {
    ($name:ident) => {
        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::write!(f, "{}({})", ::core::stringify!($name), self)
            }
        }

        impl ::core::convert::From<$name> for $crate::Owner {
            fn from(key: $name) -> Self {
                Self::new(::std::string::ToString::to_string(&key))
            }
        }

        impl ::core::convert::From<&$name> for $crate::Owner {
            fn from(key: &$name) -> Self {
                Self::new(::std::string::ToString::to_string(key))
            }
        }

        impl ::core::str::FromStr for $name {
            type Err = $crate::InvalidKey;
            fn from_str(text: &str) -> ::core::result::Result<Self, $crate::InvalidKey> {
                <Self as $crate::AggregateKey>::parse(text)
            }
        }

        impl $crate::__private::serde::Serialize for $name {
            fn serialize<S: $crate::__private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> $crate::__private::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::__private::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::core::result::Result<Self, D::Error> {
                $crate::__private::deserialize_key(deserializer)
            }
        }

        impl $crate::__private::schemars::JsonSchema for $name {
            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                ::core::convert::Into::into(::core::stringify!($name))
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(
                _: &mut $crate::__private::schemars::SchemaGenerator,
            ) -> $crate::__private::schemars::Schema {
                <Self as $crate::AggregateKey>::schema()
            }
        }
    };
}
