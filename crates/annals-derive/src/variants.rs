//! What every derive asks of its enum, and the errors that say what to do instead.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Data, DeriveInput, Fields, Ident, Type, Variant};

/// Where a type stands, for errors about it. Names in the code are still the macro's own.
pub(crate) fn at(ty: &impl syn::spanned::Spanned) -> Span {
    Span::call_site().located_at(ty.span())
}

/// The same tokens, for errors at another place.
pub(crate) fn moved(tokens: TokenStream, to: Span) -> TokenStream {
    let moved = tokens.into_iter().map(|mut token| {
        token.set_span(token.span().located_at(to));
        token
    });
    moved.collect()
}

/// The variants of an enum without parameters.
pub(crate) fn of<'a>(input: &'a DeriveInput, what: &str) -> syn::Result<Vec<&'a Variant>> {
    let Data::Enum(data) = &input.data else {
        return Err(syn::Error::new(
            input.ident.span(),
            format!(
                "{what} are an enum, one variant each: write `enum {}`",
                input.ident
            ),
        ));
    };
    if !input.generics.params.is_empty() {
        return Err(syn::Error::new(
            input.generics.span(),
            format!("{what} have names on the wire, so their enum takes no parameters"),
        ));
    }
    if data.variants.is_empty() {
        return Err(syn::Error::new(
            input.ident.span(),
            format!("an enum of {what} needs at least one variant"),
        ));
    }
    Ok(data.variants.iter().collect())
}

/// The one unnamed struct in a variant, or nothing.
pub(crate) fn payload<'a>(variant: &'a Variant, what: &str) -> syn::Result<Option<&'a Type>> {
    let name = &variant.ident;
    match &variant.fields {
        Fields::Unit => Ok(None),
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Ok(Some(&fields.unnamed[0].ty)),
        Fields::Unnamed(_) => Err(syn::Error::new(
            variant.fields.span(),
            format!("{what} hold one struct: put these into one and write `{name}({name})`"),
        )),
        Fields::Named(_) => Err(syn::Error::new(
            variant.fields.span(),
            format!("{what} hold one struct: write `struct {name} {{ … }}` and here `{name}({name})`"),
        )),
    }
}

/// Refuses a name that two variants share.
pub(crate) fn distinct<'a>(names: impl IntoIterator<Item = (&'a str, Span)>) -> syn::Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for (name, span) in names {
        if !seen.insert(name) {
            return Err(syn::Error::new(
                span,
                format!("`{name}` is the name of another variant already: give this one its own"),
            ));
        }
    }
    Ok(())
}

/// A variant that holds one struct or nothing, with its name on the wire.
pub(crate) struct Payload<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) data: Option<&'a Type>,
}

impl Payload<'_> {
    /// The type of the data: the struct, or `Empty`.
    pub(crate) fn ty(&self, domain: &TokenStream) -> TokenStream {
        match self.data {
            Some(ty) => quote!(#ty),
            None => quote!(#domain::Empty),
        }
    }

    /// `Self::Place(..)` or `Self::Confirm`.
    pub(crate) fn any(&self) -> TokenStream {
        let ident = self.ident;
        match self.data {
            Some(_) => quote!(Self::#ident(..)),
            None => quote!(Self::#ident),
        }
    }

    /// The function from the data to the variant.
    pub(crate) fn make(&self, domain: &TokenStream) -> TokenStream {
        let ident = self.ident;
        match self.data {
            Some(_) => quote!(Self::#ident),
            None => quote!(|#domain::Empty {}| Self::#ident),
        }
    }

    /// The arm of `write` for this variant.
    pub(crate) fn write(&self, domain: &TokenStream) -> TokenStream {
        let ident = self.ident;
        match self.data {
            Some(ty) => quote_spanned! { at(&ty)=>
                Self::#ident(data) => #domain::__private::serde::Serialize::serialize(data, serializer),
            },
            None => quote! {
                Self::#ident => #domain::__private::serde::Serialize::serialize(&#domain::Empty {}, serializer),
            },
        }
    }
}
