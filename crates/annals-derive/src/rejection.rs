//! `#[derive(Rejection)]`: codes, and the fields as detail.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{DeriveInput, Fields, Ident, Variant};

use crate::attributes::{OnEnum, OnVariant};
use crate::{names, variants};

struct Code<'a> {
    ident: &'a Ident,
    code: String,
    fields: Vec<&'a Ident>,
}

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let domain = OnEnum::read(&input.attrs, "rejection")?.domain();
    let rejections = variants::of(input, "rejections")?
        .into_iter()
        .map(read)
        .collect::<syn::Result<Vec<_>>>()?;
    variants::distinct(rejections.iter().map(|r| (r.code.as_str(), r.ident.span())))?;

    let codes = rejections.iter().map(|rejection| &rejection.code);
    let code_arms = rejections
        .iter()
        .map(|Code { ident, code, .. }| quote!(Self::#ident { .. } => #code,));
    let detail_arms = rejections.iter().map(|rejection| detail(rejection, &domain));
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #domain::Rejection for #ident {
            const CODES: &'static [&'static str] = &[#(#codes),*];
            fn code(&self) -> &'static str {
                match self { #(#code_arms)* }
            }
            fn write_detail<S: #domain::__private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                match self { #(#detail_arms)* }
            }
        }
    })
}

fn detail(rejection: &Code<'_>, domain: &TokenStream) -> TokenStream {
    let Code { ident, fields, .. } = rejection;
    let count = fields.len();
    // Prefixed, so that no field can hide a name of the code around it.
    let locals = fields
        .iter()
        .map(|field| quote::format_ident!("field_{}", field.unraw()));
    let locals: Vec<_> = locals.collect();
    let entries = fields.iter().zip(&locals).map(|(field, local)| {
        let name = field.unraw().to_string();
        quote! {
            #domain::__private::serde::ser::SerializeMap::serialize_entry(&mut detail, #name, #local)?;
        }
    });
    let muts = (count > 0).then(|| quote!(mut));
    quote! {
        Self::#ident { #(#fields: #locals),* } => {
            let #muts detail =
                #domain::__private::serde::Serializer::serialize_map(serializer, ::core::option::Option::Some(#count))?;
            #(#entries)*
            #domain::__private::serde::ser::SerializeMap::end(detail)
        }
    }
}

fn read(variant: &Variant) -> syn::Result<Code<'_>> {
    let fields = match &variant.fields {
        Fields::Unit => Vec::new(),
        Fields::Named(fields) => fields
            .named
            .iter()
            .filter_map(|field| field.ident.as_ref())
            .collect(),
        Fields::Unnamed(_) => {
            let name = &variant.ident;
            return Err(syn::Error::new(
                variant.fields.span(),
                format!(
                    "a rejection's fields are its detail, so they need names: `{name} {{ available: … }}`"
                ),
            ));
        }
    };
    let code = match OnVariant::read(&variant.attrs, "rejection")?.name {
        Some(code) if names::is_name(&code.value, '_') => code.value,
        Some(code) => {
            return Err(syn::Error::new(
                code.span,
                "a code is words of a-z and 0-9 with single underscores between, as in `out_of_stock`",
            ));
        }
        None => names::snake_case(&variant.ident.to_string()),
    };
    Ok(Code {
        ident: &variant.ident,
        code,
        fields,
    })
}
