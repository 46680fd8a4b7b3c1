//! Derive macros for commands, events, rejections, states and inputs: data and tables, never control flow.

use proc_macro::TokenStream;

/// Derives `annals_domain::Command`.
#[proc_macro_derive(Command, attributes(command))]
pub fn command(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
/// Derives `annals_domain::Event`.
#[proc_macro_derive(Event, attributes(event))]
pub fn event(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
/// Derives `annals_domain::Rejection`.
#[proc_macro_derive(Rejection, attributes(rejection))]
pub fn rejection(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
/// Derives `annals_domain::Input`.
#[proc_macro_derive(Input, attributes(input))]
pub fn input(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
