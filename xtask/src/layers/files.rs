//! The order of the files inside a crate: a file uses only files above it.
//!
//! The `mod` lines of `lib.rs`, or of a program's `main.rs`, are that order, so that a reader can read a crate file by file.
//! `foo.rs` and the files of `foo/` are one unit, whose files may use each other. Tests may use any
//! file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use crate::shell::{Failure, failure, files_below, folder_entries, root};

/// Checks the crates of the folder `crates`.
pub(super) fn check() -> Result<(), Failure> {
    let mut violations = Vec::new();
    for folder in folder_entries(&root().join("crates"))? {
        let source = folder.join("src");
        // A program has `main.rs` alone.
        let root_file = ["lib.rs", "main.rs"].map(|name| source.join(name));
        let order = Order::of(tokens(
            root_file.iter().find(|file| file.exists()).unwrap_or(&root_file[0]),
        )?);
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("{name}: {}", order.modules.join(" "));
        for module in &order.modules {
            for file in files(&source, module)? {
                let file_tokens = tokens(&file)?;
                // In the module's own file, `super` is the crate.
                let is_own = file.parent() == Some(&source);
                let roots = if is_own { &["crate", "super"][..] } else { &["crate"] };
                for wrong in order.violations(module, file_tokens, roots) {
                    let file = file.strip_prefix(root()).unwrap_or(&file);
                    violations.push(format!("{}: {wrong}", file.display()));
                }
            }
        }
    }
    Failure::if_any(&violations)
}

/// Returns the files of a module, except its tests.
fn files(source: &Path, module: &str) -> Result<Vec<PathBuf>, Failure> {
    let is_tests = |path: &Path| path.file_stem().is_some_and(|stem| stem == "tests");
    let mut files = files_below(source.join(module), is_tests)?;
    files.push(source.join(format!("{module}.rs")));
    Ok(files)
}

fn tokens(file: &Path) -> Result<TokenStream, Failure> {
    let what = format!("read {}", file.display());
    let text = fs::read_to_string(file).map_err(failure(&what))?;
    text.parse().map_err(|error| Failure(format!("cannot {what}: {error}")))
}

/// The content of the root file about the others.
#[derive(Debug, Default)]
struct Order {
    /// The modules, each after those that it uses.
    modules: Vec<String>,
    /// The module of each name that the root exports.
    exports: BTreeMap<String, String>,
}

impl Order {
    fn of(root: TokenStream) -> Self {
        let mut order = Self::default();
        let tokens: Vec<TokenTree> = root.into_iter().collect();
        for (index, token) in tokens.iter().enumerate() {
            match (word(token).as_deref(), tokens.get(index + 1), tokens.get(index + 2)) {
                (Some("mod"), Some(TokenTree::Ident(name)), Some(TokenTree::Punct(_))) => {
                    order.modules.push(name.to_string());
                }
                (Some("use"), Some(TokenTree::Ident(module)), _) => {
                    let names = tokens[index + 2..].iter();
                    let names = names.take_while(|token| !is_mark(token, ';'));
                    for name in words(names.cloned().collect()) {
                        order.exports.insert(name, module.to_string());
                    }
                }
                _ => {}
            }
        }
        order.modules.retain(|module| module != "tests");
        order
    }

    /// Returns the uses in a file of the module that are against the order.
    fn violations(&self, module: &str, file: TokenStream, roots: &[&str]) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        collect(file, roots, &mut used);
        let place = |name: &str| self.modules.iter().position(|known| known == name);
        let wrong = used.iter().filter_map(|name| {
            let exported = self.exports.get(name).filter(|_| place(name).is_none());
            let target = exported.unwrap_or(name);
            match place(target) {
                Some(found) if Some(found) <= place(module) => None,
                Some(_) => {
                    Some(format!("`{module}` uses `{target}`, which the root file lists after it"))
                }
                None => Some(format!("no file is known to have `crate::{name}`")),
            }
        });
        wrong.collect()
    }
}

/// Collects the first name of each path that starts with one of `roots`, except in tests.
fn collect(tokens: TokenStream, roots: &[&str], used: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut rest = &tokens[..];
    while let [token, behind @ ..] = rest {
        rest = behind;
        match (token, behind) {
            (hash, [TokenTree::Group(attribute), item @ ..])
                if is_mark(hash, '#') && is_for_tests(attribute) =>
            {
                rest = skip_item(item);
            }
            // `$crate`: a macro's path, which its users follow from outside.
            (dollar, [_crate, after @ ..]) if is_mark(dollar, '$') => rest = after,
            // In an inline module, `super` is the file.
            (keyword, _) if word(keyword).is_some_and(|word| word == "mod") => {
                let block =
                    behind.iter().take(3).position(|token| matches!(token, TokenTree::Group(_)));
                if let Some((TokenTree::Group(block), after)) =
                    block.and_then(|block| behind[block..].split_first())
                {
                    collect(block.stream(), &["crate"], used);
                    rest = after;
                }
            }
            (root, [first, second, path, ..])
                if word(root).is_some_and(|root| roots.contains(&root.as_str()))
                    && is_mark(first, ':')
                    && is_mark(second, ':') =>
            {
                match path {
                    TokenTree::Ident(name) => drop(used.insert(name.to_string())),
                    TokenTree::Group(list) => used.extend(first_names(list)),
                    // A glob hides what it brings in.
                    other => drop(used.insert(other.to_string())),
                }
            }
            (TokenTree::Group(group), _) => collect(group.stream(), roots, used),
            _ => {}
        }
    }
}

/// Returns the first name of each path in `{a::B, c::{D, E}}`.
fn first_names(list: &Group) -> Vec<String> {
    let tokens: Vec<TokenTree> = list.stream().into_iter().collect();
    let paths = tokens.split(|token| is_mark(token, ','));
    paths.filter_map(|path| word(path.first()?)).collect()
}

fn words(tokens: Vec<TokenTree>) -> Vec<String> {
    let names = |token| match token {
        TokenTree::Group(group) => words(group.stream().into_iter().collect()),
        TokenTree::Ident(name) => vec![name.to_string()],
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(names).collect()
}

fn is_for_tests(attribute: &Group) -> bool {
    let text = attribute.stream().to_string();
    attribute.delimiter() == Delimiter::Bracket
        && (text == "cfg (test)" || text.starts_with("cfg (all (test ,"))
}

/// Returns the part after an item, which ends with a semicolon or a block.
fn skip_item(tokens: &[TokenTree]) -> &[TokenTree] {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_mark(token, ';'),
    };
    let end = tokens.iter().position(is_end).map_or(tokens.len(), |end| end + 1);
    &tokens[end..]
}

fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    }
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(root: &str, module: &str, file: &str, expected: &[&str]) {
        let order = Order::of(root.parse().unwrap());
        let found = order.violations(module, file.parse().unwrap(), &["crate", "super"]);
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    const ROOT: &str = "mod error; pub mod claim; #[cfg(feature = \"log\")] mod log; mod store;
        pub use claim::{Claim, ClaimRequest}; pub use store::Store; mod tests;
        pub mod port { pub use crate::claim::Claimed; }";

    #[test]
    fn a_file_may_use_itself_and_those_above() {
        check(
            ROOT,
            "store",
            "use crate::{error::Error, claim, Store}; fn f(_: crate::Claim) {}",
            &[],
        );
        check(
            ROOT,
            "log",
            "//! Like crate::store.\n// crate::store\nconst A: &str = \"crate::store\";",
            &[],
        );
    }

    #[test]
    fn a_file_that_uses_one_below_is_named() {
        let expected = ["`error` uses `store`, which the root file lists after it"];
        check(ROOT, "error", "use crate::store::{Store, Other};", &expected);
        check(ROOT, "error", "use crate::Store;", &expected);
        check(ROOT, "error", "fn f() { let g = |x: crate::Store| x; }", &expected);
        check(ROOT, "error", "macro_rules! m { () => { crate::store::f() } }", &expected);
        check(
            ROOT,
            "log",
            "use crate::{claim::{self, store}, store::A};",
            &["`log` uses `store`, which the root file lists after it"],
        );
    }

    #[test]
    fn a_glob_and_super_are_no_way_around() {
        check(
            ROOT,
            "error",
            "use super::store::A;",
            &["`error` uses `store`, which the root file lists after it"],
        );
        check(ROOT, "error", "mod inner { use super::*; } mod log;", &[]);
        check(ROOT, "error", "use crate::*;", &["no file is known to have `crate::*`"]);
    }

    #[test]
    fn a_name_of_no_file_is_told() {
        let expected = ["no file is known to have `crate::port`"];
        check(ROOT, "store", "use crate::port::Claimed;", &expected);
    }

    #[test]
    fn tests_may_use_everything() {
        let tests =
            "#[cfg(test)] use crate::store::a; #[cfg(test)] mod tests { use crate::Store; }";
        check(ROOT, "error", tests, &[]);
        check(ROOT, "error", "#[cfg(all(test, unix))] mod tests { use super::*; }", &[]);
        let behind = "#[cfg(test)] mod tests { use crate::Store; } use crate::store::A;";
        check(ROOT, "error", behind, &["`error` uses `store`, which the root file lists after it"]);
    }
}
