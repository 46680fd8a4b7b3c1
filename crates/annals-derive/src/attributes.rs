//! The macros' own attributes: every key that they know, and a message that lists them for any other.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::parse::Parse as _;
use syn::punctuated::Punctuated;
use syn::{Attribute, LitInt, LitStr, Path, Token, Type, parenthesized};

/// A text with the place where it stands.
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// What may stand on the enum.
#[derive(Default)]
pub(crate) struct OnEnum {
    krate: Option<Path>,
    /// `category = "…"`, in `event` only.
    pub(crate) category: Option<Spanned<String>>,
}

/// What may stand on a variant.
#[derive(Default)]
pub(crate) struct OnVariant {
    /// `name = "…"` in `command`, `code = "…"` in `rejection`.
    pub(crate) name: Option<Spanned<String>>,
    /// `schema = 2` in `event`.
    pub(crate) schema: Option<Spanned<u32>>,
    /// `was(PlacedV1)` in `event`.
    pub(crate) was: Vec<Type>,
    /// `erasure` in `event`, `timer` in `input`.
    pub(crate) flag: bool,
}

impl OnEnum {
    pub(crate) fn read(attributes: &[Attribute], kind: &str) -> syn::Result<Self> {
        let mut read = Self::default();
        each(attributes, kind, |meta| match name_of(&meta).as_deref() {
            Some("crate") => {
                read.krate = Some(meta.value()?.parse::<LitStr>()?.parse()?);
                Ok(())
            }
            Some("category") if kind == "event" => {
                read.category = Some(text(&meta)?);
                Ok(())
            }
            _ if kind == "event" => {
                Err(meta.error("on the enum, `event` takes `category = \"…\"` and `crate = \"…\"`"))
            }
            _ => Err(meta.error(format!("on the enum, `{kind}` takes `crate = \"…\"` only"))),
        })?;
        Ok(read)
    }

    /// The path of the crate `annals_domain` in the code that is written.
    pub(crate) fn domain(&self) -> TokenStream {
        match &self.krate {
            Some(path) => quote!(#path),
            None => quote!(::annals_domain),
        }
    }
}

impl OnVariant {
    pub(crate) fn read(attributes: &[Attribute], kind: &str) -> syn::Result<Self> {
        let mut read = Self::default();
        each(attributes, kind, |meta| {
            match (kind, name_of(&meta).as_deref()) {
                ("command", Some("name")) | ("rejection", Some("code")) => read.name = Some(text(&meta)?),
                ("event", Some("schema")) => {
                    let number = meta.value()?.parse::<LitInt>()?;
                    read.schema = Some(Spanned {
                        value: number.base10_parse()?,
                        span: number.span(),
                    });
                }
                ("event", Some("was")) => {
                    let list;
                    parenthesized!(list in meta.input);
                    let older = Punctuated::<Type, Token![,]>::parse_terminated_with(&list, Type::parse)?;
                    read.was.extend(older);
                }
                ("event", Some("erasure")) | ("input", Some("timer")) => read.flag = true,
                _ => return Err(meta.error(format!("on a variant, `{kind}` takes {}", known(kind)))),
            }
            Ok(())
        })?;
        Ok(read)
    }
}

fn known(kind: &str) -> &'static str {
    match kind {
        "command" => "`name = \"…\"`",
        "event" => "`schema = 2`, `was(Older, …)` and `erasure`",
        "rejection" => "`code = \"…\"`",
        _ => "`timer`",
    }
}

fn each(
    attributes: &[Attribute],
    kind: &str,
    mut read: impl FnMut(ParseNestedMeta<'_>) -> syn::Result<()>,
) -> syn::Result<()> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident(kind))
        .try_for_each(|attribute| attribute.parse_nested_meta(&mut read))
}

fn name_of(meta: &ParseNestedMeta<'_>) -> Option<String> {
    meta.path.get_ident().map(ToString::to_string)
}

fn text(meta: &ParseNestedMeta<'_>) -> syn::Result<Spanned<String>> {
    let literal = meta.value()?.parse::<LitStr>()?;
    Ok(Spanned {
        value: literal.value(),
        span: literal.span(),
    })
}

/// The first paragraph of the documentation, on one line.
pub(crate) fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
        .filter_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) => match &pair.value {
                syn::Expr::Lit(syn::ExprLit {
                    lit: syn::Lit::Str(text),
                    ..
                }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        })
        .flat_map(|text| {
            let lines = text.split('\n');
            lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        });
    lines
        .skip_while(String::is_empty)
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
