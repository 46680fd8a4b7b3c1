//! Derive macros for commands, events, rejections and inputs: data and tables, never control flow.
//!
//! What they write is what a patient person would write by hand: `match` tables from names to types and back.
//! Their output names the crate `annals_domain`; where that goes by another path, say so on the enum:
//! `#[command(crate = "annals::domain")]`, and likewise in `event`, `rejection` and `input`.
//!
//! | derive | on | gives |
//! |---|---|---|
//! | `Command` | an enum, one struct or nothing a variant | names, schemas, reading and writing |
//! | `Event` | the same, with a category | types, schemas, upcasting |
//! | `Rejection` | an enum, named fields or nothing a variant | codes and details |
//! | `Input` | an enum, one outcome or timer a variant | categories, timers, and the names of timers |

mod attributes;
mod command;
mod event;
mod input;
mod names;
mod rejection;
mod variants;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

fn expand(
    input: TokenStream,
    derive: fn(&DeriveInput) -> syn::Result<proc_macro2::TokenStream>,
) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    derive(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

/// Derives `annals_domain::Command` for an enum whose variants hold one struct (`Place(Place)`) or nothing.
///
/// The command's name is the variant's in kebab-case (`change-contact`); `#[command(name = "…")]` on a variant
/// gives another. The data of a variant without a struct are `{}`. The first paragraph of a variant's
/// documentation describes the command to clients.
#[proc_macro_derive(Command, attributes(command))]
pub fn command(input: TokenStream) -> TokenStream {
    expand(input, command::derive)
}

/// Derives `annals_domain::Event` for an enum whose variants hold one struct (`Placed(Placed)`) or nothing.
///
/// `#[event(category = "order")]` on the enum is required. The event's type is the category, a dot and the
/// variant's name in snake_case (`order.placed`). On a variant:
///
/// - `#[event(schema = 3, was(PlacedV1, PlacedV2))]`: the struct is schema 3; `was` names the structs of schemas 1
///   and 2, each with a `From<…>` for the newest one, which is how old records are read;
/// - `#[event(erasure)]`: this event is the record of an erasure.
#[proc_macro_derive(Event, attributes(event))]
pub fn event(input: TokenStream) -> TokenStream {
    expand(input, event::derive)
}

/// Derives `annals_domain::Rejection` for an enum whose variants have named fields or nothing.
///
/// The code is the variant's name in snake_case (`out_of_stock`), or `#[rejection(code = "…")]`. The fields are
/// the detail, under their names; each implements `serde::Serialize`.
#[proc_macro_derive(Rejection, attributes(rejection))]
pub fn rejection(input: TokenStream) -> TokenStream {
    expand(input, rejection::derive)
}

/// Derives `annals_domain::Input` for an enum with one variant an aggregate (`Order(Outcome<Order>)`) and one a
/// timer (`#[input(timer)] TimedOut(OrderId)`, holding the process's id).
///
/// A timer's name is the variant's in snake_case. Each also becomes a constant of the enum
/// (`Input::TIMED_OUT`), for `Actions::wake`.
#[proc_macro_derive(Input, attributes(input))]
pub fn input(input: TokenStream) -> TokenStream {
    expand(input, input::derive)
}
