//! What a domain developer forgets does not compile. Each example is compiled, and must fail with that error.
//!
//! No derive for the commands (E0277, `#[diagnostic::on_unimplemented]` says which):
//!
//! ```compile_fail,E0277
//! #[derive(Debug, Clone)]
//! enum Command { Place }
//! fn needs<C: annals_domain::Command>() {}
//! needs::<Command>();
//! ```
//!
//! No upcaster for an older schema (E0277, `Placed: From<PlacedV1>`):
//!
//! ```compile_fail,E0277
//! use annals_domain::Event as _;
//! #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! struct PlacedV1 {}
//! #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! struct Placed { total: i64 }
//! #[derive(Debug, Clone, annals_domain::Event)]
//! #[event(category = "order")]
//! enum Event { #[event(schema = 2, was(PlacedV1))] Placed(Placed) }
//! ```
//!
//! No owner (E0046):
//!
//! ```compile_fail,E0046
//! use annals_domain::{Aggregate, Context, Empty};
//! annals_domain::uuid_key!(struct OrderId;);
//! #[derive(Debug, Clone, annals_domain::Command)]
//! enum Command { Place }
//! #[derive(Debug, Clone, annals_domain::Event)]
//! #[event(category = "order")]
//! enum Event { Placed(Empty) }
//! #[derive(Debug, Clone, annals_domain::Rejection)]
//! enum Rejection { AlreadyPlaced }
//! #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! struct Order {}
//! impl Aggregate for Order {
//!     const CATEGORY: &'static str = "order";
//!     const RESOURCE: &'static str = "orders";
//!     const REVISION: u32 = 1;
//!     type Key = OrderId;
//!     type Command = Command;
//!     type Event = Event;
//!     type Rejection = Rejection;
//!     fn decide(&self, _: &Command, _: &Context<'_, Self>) -> Result<Vec<Event>, Rejection> { Ok(Vec::new()) }
//!     fn evolve(&mut self, _: &Event) {}
//! }
//! ```
//!
//! An arm for a new event (E0004), where folds and deciders have no `_`:
//!
//! ```compile_fail,E0004
//! #[derive(Debug, Clone, annals_domain::Event)]
//! #[event(category = "order")]
//! enum Event { Placed, Shipped }
//! fn evolve(event: &Event) { match event { Event::Placed => {} } }
//! ```
//!
//! A rule that looks into a personal value (E0599, it has no accessor):
//!
//! ```compile_fail,E0599
//! fn rule(name: &annals_domain::Personal<String>) -> bool { name.as_str() == "Ada" }
//! ```
//!
//! An accepted one, so that the examples above fail for their own reason only:
//!
//! ```
//! #[derive(Debug, Clone, annals_domain::Command)]
//! enum Command { Place }
//! fn needs<C: annals_domain::Command>() {}
//! needs::<Command>();
//! ```
