//! `#[derive(Event)]`: types, every schema of each, and a table for reading that brings old ones up.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{DeriveInput, Type, Variant};

use crate::attributes::{self, OnEnum, OnVariant};
use crate::variants::{Payload, at};
use crate::{names, variants};

struct EventVariant<'a> {
    payload: Payload<'a>,
    newest: u32,
    older: Vec<Type>,
    erasure: bool,
}

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let on_enum = OnEnum::read(&input.attrs, "event")?;
    let domain = on_enum.domain();
    let category = match on_enum.category {
        Some(category) if names::is_name(&category.value, '_') => category.value,
        Some(category) => {
            return Err(syn::Error::new(
                category.span,
                "a category is words of a-z and 0-9 with single underscores between, as in `order`",
            ));
        }
        None => {
            return Err(syn::Error::new(
                input.ident.span(),
                "events are named after their aggregate's category: add `#[event(category = \"…\")]` to the enum",
            ));
        }
    };
    let events = variants::of(input, "events")?
        .into_iter()
        .map(|variant| read(variant, &category))
        .collect::<syn::Result<Vec<_>>>()?;
    let payloads = || events.iter().map(|event| &event.payload);
    variants::distinct(payloads().map(|event| (event.name.as_str(), event.ident.span())))?;

    let types = events.iter().map(|event| types(event, &domain));
    let type_arms = payloads().map(|event| {
        let (any, name) = (event.any(), &event.name);
        quote!(#any => #name,)
    });
    let schema_arms = events.iter().map(|event| {
        let (any, newest) = (event.payload.any(), event.newest);
        quote!(#any => #newest,)
    });
    let read_arms = events.iter().map(|event| read_arms(event, &domain));
    let write_arms = payloads().map(|event| event.write(&domain));
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #domain::Event for #ident {
            fn types() -> ::std::vec::Vec<#domain::EventType> {
                ::std::vec![#(#types),*]
            }
            fn event_type(&self) -> &'static str {
                match self { #(#type_arms)* }
            }
            fn schema(&self) -> u32 {
                match self { #(#schema_arms)* }
            }
            fn write<S: #domain::__private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                match self { #(#write_arms)* }
            }
            fn read(
                event_type: &str,
                schema: u32,
                data: &#domain::__private::serde_json::value::RawValue,
            ) -> ::core::result::Result<Self, #domain::ReadError> {
                match (event_type, schema) {
                    #(#read_arms)*
                    _ => ::core::result::Result::Err(#domain::__private::unknown_event(event_type)),
                }
            }
        }
    })
}

fn types(event: &EventVariant<'_>, domain: &TokenStream) -> TokenStream {
    let (name, doc, erasure) = (&event.payload.name, &event.payload.doc, event.erasure);
    let newest = event.payload.ty(domain);
    let shapes = event.older.iter().map(|ty| quote!(#ty)).chain([newest]);
    let versions = (1u32..).zip(shapes).map(|(number, ty)| {
        quote_spanned! { at(&ty)=>
            #domain::EventVersion { number: #number, schema: #domain::__private::schema_of::<#ty> }
        }
    });
    quote! {
        #domain::EventType {
            name: #name,
            doc: #doc,
            versions: ::std::vec![#(#versions),*],
            erasure: #erasure,
        }
    }
}

fn read_arms(event: &EventVariant<'_>, domain: &TokenStream) -> TokenStream {
    let (name, number) = (&event.payload.name, event.newest);
    let (newest, make) = (event.payload.ty(domain), event.payload.make(domain));
    let older = (1u32..).zip(&event.older).map(|(schema, ty)| {
        // All of it spanned at `was`, so that a missing `From` is reported there and once.
        let newest = variants::moved(newest.clone(), at(ty));
        let domain = variants::moved(domain.clone(), at(ty));
        quote_spanned! { at(ty)=>
            (#name, #schema) => #domain::__private::read_event::<#ty>(#name, #schema, data)
                .map(<#newest as #domain::__private::Upcast<#ty>>::upcast)
                .map(#make),
        }
    });
    quote! {
        #(#older)*
        (#name, #number) => #domain::__private::read_event::<#newest>(#name, #number, data).map(#make),
        (#name, _) => ::core::result::Result::Err(
            #domain::__private::unknown_schema(#name, schema, #number),
        ),
    }
}

fn read<'a>(variant: &'a Variant, category: &str) -> syn::Result<EventVariant<'a>> {
    let attribute = OnVariant::read(&variant.attrs, "event")?;
    let (newest, span) = attribute
        .schema
        .map_or_else(|| (1, variant.ident.span()), |schema| (schema.value, schema.span));
    check_older(newest, attribute.was.len(), span)?;
    let word = names::snake_case(&variant.ident.to_string());
    Ok(EventVariant {
        payload: Payload {
            ident: &variant.ident,
            name: format!("{category}.{word}"),
            doc: attributes::doc(&variant.attrs),
            data: variants::payload(variant, "events")?,
        },
        newest,
        older: attribute.was,
        erasure: attribute.flag,
    })
}

fn check_older(newest: u32, older: usize, span: Span) -> syn::Result<()> {
    if newest == 0 {
        return Err(syn::Error::new(span, "schemas are counted from 1"));
    }
    if usize::try_from(newest - 1) == Ok(older) {
        return Ok(());
    }
    Err(syn::Error::new(
        span,
        format!(
            "schema {newest} has {} before it, and `was(…)` names {older}: name the struct of every one, \
             from schema 1 on",
            newest - 1
        ),
    ))
}
