//! The table of error codes: the only place that has their names, statuses and words.

use http::StatusCode;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The code.
    pub code: Code,
    /// Its name in `code` and behind `/problems/`.
    pub name: &'static str,
    /// Its status.
    pub status: u16,
    /// What kind of problem it is: the same for all of its kind.
    pub title: &'static str,
    /// What is said where nothing more is known.
    pub detail: &'static str,
    /// What a caller can do about it.
    pub remedy: &'static str,
    /// The extension members, `(name, meaning)`.
    pub members: &'static [(&'static str, &'static str)],
    /// `Retry-After` in seconds, where nothing better is known.
    pub retry_after_s: Option<u32>,
}

macro_rules! codes {
    ($($code:ident, $name:literal, $status:literal, $title:literal, $detail:literal, $remedy:literal,
       [$(($member:literal, $meaning:literal)),*], $retry:expr;)*) => {
        /// An error code. Once given out it keeps its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!($status, " `", $name, "`: ", $detail)] $code,)*
        }

        impl Code {
            /// Every code, by status.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// Its row.
            #[must_use]
            pub const fn entry(self) -> &'static Entry {
                match self {
                    $(Self::$code => &Entry {
                        code: Self::$code, name: $name, status: $status, title: $title, detail: $detail,
                        remedy: $remedy, members: &[$(($member, $meaning)),*], retry_after_s: $retry,
                    },)*
                }
            }
        }
    };
}

codes! {
    Malformed, "malformed", 400, "The request cannot be read",
        "The body is not JSON as it is taken here.",
        "Mend the body: UTF-8, one JSON value, no name twice in an object, no U+0000, at most 32 levels deep, numbers within ±(2^53−1).",
        [("offset", "the byte of the body, from 0, where it goes wrong")], None;
    IdempotencyKeyRequired, "idempotency-key-required", 400, "An idempotency key is required",
        "A command needs the header Idempotency-Key.",
        "Choose a new key for each command (a UUID will do) and send a repeat with the same key.", [], None;
    UnknownParameter, "unknown-parameter", 400, "There is no such parameter",
        "A parameter is not known here.",
        "Leave the parameter out, or correct its name: unknown ones are never ignored.", [], None;
    InvalidParameter, "invalid-parameter", 400, "A parameter or header has a bad value",
        "A parameter or header has a value that it cannot have.",
        "Correct the value that the detail names.", [], None;
    InvalidCursor, "invalid-cursor", 400, "The cursor is not valid here",
        "The cursor was changed, or belongs to another query or another caller.",
        "Begin again without a cursor, and use `next` as it is given.", [], None;
    UnknownPosition, "unknown-position", 400, "There is no such position",
        "The position is of another generation of the log, or of a shard that the log does not have.",
        "Forget positions of a log that was replaced; take new ones from answers.", [], None;
    Unauthenticated, "unauthenticated", 401, "Who is calling is not known",
        "A bearer token is required.",
        "Send `Authorization: Bearer …` with a token that is still good.", [], None;
    Forbidden, "forbidden", 403, "This caller may not do that",
        "The caller's roles do not allow this.",
        "Ask with a role that may, or about what is your own.", [], None;
    UnknownResource, "unknown-resource", 404, "There is no such resource",
        "Nothing is served under this path.",
        "See /v1/openapi.json for what there is.", [], None;
    UnknownCommand, "unknown-command", 404, "There is no such command",
        "The resource has no command of this name.",
        "See /v1/openapi.json for the resource's commands.", [], None;
    NotFound, "not-found", 404, "There is no such thing",
        "Nothing is found under this key, or nothing that this caller may see.",
        "Check the key and its form.", [], None;
    MethodNotAllowed, "method-not-allowed", 405, "The path does not have this method",
        "The method is not allowed here; `Allow` lists those that are.",
        "Use a method of the header `Allow`.", [], None;
    NotAcceptable, "not-acceptable", 406, "The answer cannot be given in this form",
        "None of the media types in Accept can be given.",
        "Accept application/json.", [], None;
    Rejected, "rejected", 409, "The rules said no",
        "The command was decided, and refused by the rules. The refusal is on the record.",
        "Read `rejection`: repeating the same request with the same key gives the same answer.",
        [("rejection", "code and detail of the rule's no"), ("record", "the refusal's record"),
         ("position", "where that record stands")], None;
    VersionMismatch, "version-mismatch", 412, "The stream is not at the version asked for",
        "If-Match or If-None-Match did not hold. That is on the record: the same key gives it again.",
        "Read the present state, decide again, and send a new key.",
        [("current", "the stream's version when it was compared"), ("record", "the refusal's record"),
         ("position", "where that record stands")], None;
    TooLarge, "too-large", 413, "The request is too large",
        "The body is larger than is taken here.",
        "Send less at once.", [("limit", "the limit in bytes")], None;
    UnsupportedMediaType, "unsupported-media-type", 415, "The body has an unknown form",
        "A body needs the content type application/json.",
        "Send JSON and say so in Content-Type; no Content-Encoding is taken.", [], None;
    Misdirected, "misdirected", 421, "This node does not serve that",
        "This node lacks the role that the request needs.",
        "Send it to a node with that role; a load balancer routes by path and method.",
        [("role", "the node role that is needed")], None;
    Invalid, "invalid", 422, "The body does not fit",
        "The body does not fit the command's schema, or contradicts itself.",
        "Mend everything that `errors` lists.",
        [("errors", "all that is wrong: `pointer` (RFC 6901) and `message`")], None;
    IdempotencyKeyReused, "idempotency-key-reused", 422, "The idempotency key was used for something else",
        "The key was used on this stream for another command, another body or by another caller.",
        "Use a new key for a new command.", [], None;
    QuotaExceeded, "quota-exceeded", 429, "Too much was asked",
        "Too many of this caller's commands were refused lately.",
        "Wait as long as Retry-After says; find out why commands are refused.", [], None;
    HeadersTooLarge, "headers-too-large", 431, "The headers are too large",
        "The headers are larger than is taken here.",
        "Send fewer or shorter headers.", [("limit", "the limit in bytes")], None;
    Internal, "internal", 500, "Something went wrong here",
        "It is logged under the correlation id.",
        "Send it again with the same idempotency key; if it stays, tell the operator the correlation id.", [], None;
    Overloaded, "overloaded", 503, "There is too much to do right now",
        "A queue is full. Nothing happened.",
        "Send it again after Retry-After, with the same key.", [], Some(1);
    ShardUnavailable, "shard-unavailable", 503, "This part of the log has no owner right now",
        "Ownership is changing hands. Nothing happened.",
        "Send it again after Retry-After, with the same key.", [], Some(1);
    ShardHalted, "shard-halted", 503, "This part of the log has stopped",
        "It waits for an operator. Nothing happened.",
        "Tell the operator: a retry alone does not help.", [], Some(60);
    LogUnavailable, "log-unavailable", 503, "The database or the log cannot be reached",
        "What is needed to answer cannot be read right now. Nothing happened.",
        "Send it again after Retry-After, with the same key.", [], Some(2);
    ProjectionBehind, "projection-behind", 503, "The read model is not that far yet",
        "The read model did not reach the position in Annals-After in time.",
        "Ask again after Retry-After, or wait longer with `Prefer: wait=…`.",
        [("distance", "how many records are missing"), ("position", "the position that was asked for")], Some(1);
    OutcomeUnknown, "outcome-unknown", 504, "It is not known yet whether it happened",
        "The deadline passed before the log answered.",
        "Send it again with the same key: it happens at most once, and you get its answer.", [], Some(1);
}

impl Code {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// Its status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.entry().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The code of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}
