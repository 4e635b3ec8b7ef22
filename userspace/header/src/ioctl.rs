// SPDX-License-Identifier: GPL-2.0-only

//! The ioctl numbers: `ioc::<VmSet>(WRITE, 3)` becomes `_IOW(SLEEPY_TYPE, 3, struct sleepy_vm_set)`.

use syn::{Expr, GenericArgument, Item, PathArguments, Type};

use crate::Error;
use crate::comment;
use crate::names::{Names, PREFIX};

/// One `#define` for each constant made by the function `ioc`, and that of the type number.
pub fn defines(items: &[Item], names: &Names) -> Result<String, Error> {
    let mut out = String::new();
    for item in items {
        let Item::Const(item) = item else { continue };
        if item.ident == "TYPE" {
            let value = integer(&item.expr).ok_or("TYPE is no integer")?;
            out.push_str(&format!("#define {PREFIX}TYPE {value}\n"));
        }
        let Expr::Call(call) = &*item.expr else {
            continue;
        };
        let value = number(call, names).ok_or_else(|| format!("{}: not understood", item.ident))?;
        out.push('\n');
        out.push_str(&comment::block("", &comment::docs(&item.attrs), names));
        out.push_str(&format!("#define {PREFIX}{} {value}\n", item.ident));
    }
    Ok(out)
}

fn number(call: &syn::ExprCall, names: &Names) -> Option<String> {
    let Expr::Path(function) = &*call.func else {
        return None;
    };
    let segment = function
        .path
        .segments
        .last()
        .filter(|segment| segment.ident == "ioc")?;
    let PathArguments::AngleBracketed(types) = &segment.arguments else {
        return None;
    };
    let Some(GenericArgument::Type(Type::Path(argument))) = types.args.first() else {
        return None;
    };
    let argument = names.all().get(&argument.path.get_ident()?.to_string())?;

    let mut flags = Vec::new();
    collect_flags(call.args.first()?, &mut flags)?;
    let has = |wanted| flags.iter().any(|flag| flag == wanted);
    let function = match (has("READ"), has("WRITE")) {
        (true, true) => "_IOWR",
        (true, false) => "_IOR",
        (false, true) => "_IOW",
        (false, false) => return None,
    };
    let number = integer(call.args.get(1)?)?;
    Some(format!(
        "{function}({PREFIX}TYPE, {number}, struct {argument})"
    ))
}

fn integer(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Int(number),
            ..
        }) => Some(number.to_string()),
        _ => None,
    }
}

/// The names in `READ | WRITE`.
fn collect_flags(expr: &Expr, flags: &mut Vec<String>) -> Option<()> {
    match expr {
        Expr::Path(path) => flags.push(path.path.get_ident()?.to_string()),
        Expr::Binary(binary) => {
            collect_flags(&binary.left, flags)?;
            collect_flags(&binary.right, flags)?;
        }
        _ => return None,
    }
    Some(())
}
