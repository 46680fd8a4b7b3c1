//! `#[derive(Input)]`: which categories a process reads, and the names of its timers.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{DeriveInput, Ident, Type, Variant};

use crate::attributes::{OnEnum, OnVariant};
use crate::variants::at;
use crate::{names, variants};

struct InputVariant<'a> {
    ident: &'a Ident,
    ty: &'a Type,
    timer: bool,
}

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let domain = OnEnum::read(&input.attrs, "input")?.domain();
    let inputs = variants::of(input, "inputs")?
        .into_iter()
        .map(read)
        .collect::<syn::Result<Vec<_>>>()?;
    let records = || inputs.iter().filter(|input| !input.timer);
    let timers = || inputs.iter().filter(|input| input.timer);
    let spans = timers().map(|timer| (names::snake_case(&timer.ident.to_string()), timer.ident.span()));
    let spans: Vec<_> = spans.collect();
    variants::distinct(spans.iter().map(|(name, span)| (name.as_str(), *span)))?;

    let categories = records().map(|InputVariant { ty, .. }| quote_spanned!(at(&ty)=> <#ty>::CATEGORY));
    let record_arms = records().map(|InputVariant { ident, ty, .. }| {
        quote_spanned! { at(&ty)=>
            <#ty>::CATEGORY => <#ty>::read(record).map(|outcome| ::core::option::Option::Some(Self::#ident(outcome))),
        }
    });
    let timer_arms = timers().map(|InputVariant { ident, ty, .. }| {
        let name = names::snake_case(&ident.to_string());
        quote_spanned! { at(&ty)=>
            #name => <#ty as #domain::ProcessId>::from_text(instance).map(Self::#ident),
        }
    });
    let constants = timers().map(|timer| constant(timer, input, &domain));
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #domain::Input for #ident {
            const CATEGORIES: &'static [&'static str] = &[#(#categories),*];
            fn from_record(
                record: &#domain::RecordView<'_>,
            ) -> ::core::result::Result<::core::option::Option<Self>, #domain::ReadError> {
                match record.stream.category() {
                    #(#record_arms)*
                    _ => ::core::result::Result::Ok(::core::option::Option::None),
                }
            }
            fn from_timer(name: &str, instance: &str) -> ::core::option::Option<Self> {
                let _ = instance;
                match name {
                    #(#timer_arms)*
                    _ => ::core::option::Option::None,
                }
            }
        }
        #[automatically_derived]
        #[allow(dead_code)]
        impl #ident {
            #(#constants)*
        }
    })
}

fn constant(timer: &InputVariant<'_>, input: &DeriveInput, domain: &TokenStream) -> TokenStream {
    let variant = timer.ident.to_string();
    let constant = Ident::new(&names::screaming_case(&variant), timer.ident.span());
    let (name, vis) = (names::snake_case(&variant), &input.vis);
    let doc = format!("The name of the timer behind [`Self::{variant}`].");
    quote! {
        #[doc = #doc]
        #vis const #constant: #domain::TimerName = #name;
    }
}

fn read(variant: &Variant) -> syn::Result<InputVariant<'_>> {
    let timer = OnVariant::read(&variant.attrs, "input")?.flag;
    let ident = &variant.ident;
    match variants::payload(variant, "inputs")? {
        Some(ty) => Ok(InputVariant { ident, ty, timer }),
        None => Err(syn::Error::new(
            ident.span(),
            format!(
                "an input is an outcome, `{ident}(Outcome<…>)`, or a timer with the process's id, \
                 `#[input(timer)] {ident}(…)`"
            ),
        )),
    }
}
