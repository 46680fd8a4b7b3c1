//! `#[derive(Command)]`: names, schemas, and a table for reading.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::DeriveInput;

use crate::attributes::{self, OnEnum, OnVariant};
use crate::variants::{Payload, at};
use crate::{names, variants};

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let domain = OnEnum::read(&input.attrs, "command")?.domain();
    let commands = variants::of(input, "commands")?
        .into_iter()
        .map(read)
        .collect::<syn::Result<Vec<_>>>()?;
    variants::distinct(commands.iter().map(|c| (c.name.as_str(), c.ident.span())))?;

    let types = commands.iter().map(|command| {
        let (name, doc, ty) = (&command.name, &command.doc, command.ty(&domain));
        quote_spanned! { at(&ty)=>
            #domain::CommandType { name: #name, doc: #doc, schema: #domain::__private::schema_of::<#ty> }
        }
    });
    let name_arms = commands.iter().map(|command| {
        let (any, name) = (command.any(), &command.name);
        quote!(#any => #name,)
    });
    let read_arms = commands.iter().map(|command| {
        let (name, ty, make) = (&command.name, command.ty(&domain), command.make(&domain));
        quote_spanned! { at(&ty)=>
            #name => #domain::__private::serde_json::from_slice::<#ty>(data).map(#make),
        }
    });
    let write_arms = commands.iter().map(|command| command.write(&domain));
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #domain::Command for #ident {
            fn types() -> ::std::vec::Vec<#domain::CommandType> {
                ::std::vec![#(#types),*]
            }
            fn name(&self) -> &'static str {
                match self { #(#name_arms)* }
            }
            fn read(
                name: &str,
                data: &[u8],
            ) -> ::core::option::Option<::core::result::Result<Self, #domain::__private::serde_json::Error>> {
                ::core::option::Option::Some(match name {
                    #(#read_arms)*
                    _ => return ::core::option::Option::None,
                })
            }
            fn write<S: #domain::__private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                match self { #(#write_arms)* }
            }
        }
    })
}

fn read(variant: &syn::Variant) -> syn::Result<Payload<'_>> {
    let attribute = OnVariant::read(&variant.attrs, "command")?;
    let name = match attribute.name {
        Some(name) if names::is_name(&name.value, '-') => name.value,
        Some(name) => {
            return Err(syn::Error::new(
                name.span,
                "a command's name is words of a-z and 0-9 with single hyphens between, as in `change-contact`",
            ));
        }
        None => names::kebab_case(&variant.ident.to_string()),
    };
    Ok(Payload {
        ident: &variant.ident,
        name,
        doc: attributes::doc(&variant.attrs),
        data: variants::payload(variant, "commands")?,
    })
}
