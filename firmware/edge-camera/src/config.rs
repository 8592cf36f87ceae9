//! From command line and configuration file to [`Settings`].
//!
//! A key of the file is turned into the flag of its name and goes through clap, alone at first, so that what is wrong with
//! it can be said with its line, then together with the command line. So there is one parser for both, a new flag is a
//! key at once, and what the command line says wins: a key whose flag was given is left out.

use crate::args::{Args, COMMAND_LINE_ONLY};
use crate::capture::Spec;
use crate::link;
use crate::settings::Settings;
use crate::stop::Failure;
use anyhow::anyhow;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, ValueHint};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Everything that is wrong with a file, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
struct Wrong(Vec<String>);

/// Reads the command line and the file that it names. Ends the process for `--help`, `--version` and wrong flags, as
/// clap does.
pub fn resolve(words: &[OsString]) -> Result<Settings, Failure> {
    let command = Args::command();
    let given = command.clone().try_get_matches_from(words).unwrap_or_else(|e| e.exit());
    let Some(path) = given.get_one::<PathBuf>("config") else {
        return settings(given);
    };
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::usage(anyhow!("cannot read the configuration {}: {e}", path.display())))?;
    let keys = flags(&text, path, &command).map_err(Failure::usage)?;
    let mut merged: Vec<OsString> = words.first().cloned().into_iter().collect();
    for (id, flag) in keys {
        if given.value_source(&id) != Some(ValueSource::CommandLine) {
            merged.push(flag.into());
        }
    }
    merged.extend(words.iter().skip(1).cloned());
    let merged = command.try_get_matches_from(merged);
    settings(merged.map_err(|e| Failure::usage(anyhow!("{}: {}", path.display(), plain(&e))))?)
}

fn settings(matches: ArgMatches) -> Result<Settings, Failure> {
    let args = Args::from_arg_matches(&matches).map_err(|e| Failure::usage(anyhow!("{}", plain(&e))))?;
    Settings::new(args, values(&matches))
}

/// A flag that a configuration file may set.
pub fn keys(command: &Command) -> impl Iterator<Item = &Arg> {
    let only = |arg: &&Arg| arg.get_long().is_some_and(|long| !COMMAND_LINE_ONLY.contains(&long));
    command.get_arguments().filter(only)
}

/// The file's keys as (id of the argument, `--flag=value`).
fn flags(text: &str, path: &Path, command: &Command) -> Result<Vec<(String, String)>, Wrong> {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let line = |at: usize| 1 + text.get(..at).unwrap_or_default().matches('\n').count();
    let table = DeTable::parse(text).map_err(|e| {
        let at = e.span().map_or(String::new(), |span| format!(" line {}", line(span.start)));
        Wrong(vec![format!("{file}{at}: {}", e.message().replace('\n', ", "))])
    })?;
    let folder = std::path::absolute(path).ok().and_then(|p| p.parent().map(Path::to_path_buf)).unwrap_or_default();
    let (mut flags, mut wrong) = (vec![], vec![]);
    for (key, value) in table.get_ref() {
        let name = key.get_ref().as_ref();
        let at = line(key.span().start);
        // No key is a table, whatever its name.
        let mut known = keys(command).filter(|_| !value.get_ref().is_table());
        let read = match known.find(|arg| arg.get_long() == Some(name)) {
            Some(arg) => read(arg, value, &folder, command)
                .map(|read| flags.extend(read.into_iter().map(|flag| (at, arg.get_id().to_string(), flag))))
                .map_err(|why| format!("{file} line {at}: `{name}`: {why}")),
            None => Err(unknown(name, value.get_ref(), &file, at, command)),
        };
        wrong.extend(read.err().map(|error| (at, error)));
    }
    if wrong.is_empty() {
        // In the order of the file, not of the alphabet.
        flags.sort_by_key(|(at, _, _)| *at);
        return Ok(flags.into_iter().map(|(_, id, flag)| (id, flag)).collect());
    }
    wrong.sort();
    Err(Wrong(wrong.into_iter().map(|(_, error)| error).collect()))
}

fn unknown(name: &str, value: &DeValue<'_>, file: &str, at: usize, command: &Command) -> String {
    if COMMAND_LINE_ONLY.contains(&name) {
        return format!("`{name}` in {file} line {at} is a flag of the command line only");
    }
    if value.is_table() {
        return format!("table `[{name}]` in {file} line {at}: keys stand by themselves, without tables");
    }
    let known = keys(command).filter_map(Arg::get_long);
    let near = known.map(|known| (strsim::damerau_levenshtein(known, &name.replace('_', "-")), known)).min();
    let hint = match near {
        Some((distance, known)) if distance <= 1 + name.len() / 3 => format!("did you mean `{known}`?"),
        _ => "`edge-camera --help` lists the flags, whose names are the keys".into(),
    };
    format!("unknown key `{name}` in {file} line {at}; {hint}")
}

/// The flags that a key's value means: one, or one for each element of a list.
fn read(arg: &Arg, value: &Spanned<DeValue<'_>>, folder: &Path, command: &Command) -> Result<Vec<String>, String> {
    let values = match (value.get_ref(), arg.get_action()) {
        (DeValue::Array(values), ArgAction::Append) => values.iter().map(|v| plain_text(v.get_ref())).collect(),
        (single, _) => vec![plain_text(single)],
    };
    let long = arg.get_long().unwrap_or_default();
    let one = |text: Option<String>| {
        let text = text.ok_or("a text, a number, true or false is needed")?;
        let flag = format!("--{long}={}", beside(arg, text, folder));
        // Alone first, for an error that is about nothing else; what it needs beside it is seen when all come together.
        match command.clone().try_get_matches_from(["edge-camera", &flag]) {
            Err(e) if e.kind() != ErrorKind::MissingRequiredArgument => Err(plain(&e)),
            _ => Ok(flag),
        }
    };
    values.into_iter().map(one).collect()
}

/// A value as a flag spells it; lists, tables and dates have no spelling.
fn plain_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Integer(number) => {
            let radix = number.radix();
            Some(i128::from_str_radix(number.as_str(), radix).map_or(number.as_str().into(), |n| n.to_string()))
        }
        DeValue::Float(number) => Some(number.as_str().to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// A relative path in the file is relative to the file's folder.
fn beside(arg: &Arg, text: String, folder: &Path) -> String {
    // A display's file, with what follows it.
    if let Some(file) = text.strip_prefix("png:").filter(|_| arg.get_id() == "display") {
        return format!("png:{}", folder.join(file).display());
    }
    if arg.get_id() == "link" {
        return match link::place(&text) {
            Ok(address) => address.beside(folder).to_string(),
            Err(_) => text,
        };
    }
    let path = match arg.get_value_hint() {
        ValueHint::FilePath | ValueHint::DirPath | ValueHint::AnyPath => text != "-",
        _ => arg.get_id() == "source" && matches!(text.parse(), Ok(Spec::Files(_))),
    };
    if path { folder.join(&text).display().to_string() } else { text }
}

/// What clap says of a value, without its usage lines.
fn plain(error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    match (error.kind(), error.get(ContextKind::ValidValue)) {
        (ErrorKind::InvalidValue, Some(ContextValue::Strings(allowed))) if !allowed.is_empty() => {
            format!("{:?} is none of {}", context(ContextKind::InvalidValue), allowed.join(", "))
        }
        (ErrorKind::ValueValidation, _) => {
            let value = context(ContextKind::InvalidValue);
            match std::error::Error::source(error).map(ToString::to_string) {
                Some(why) if why.contains(&format!("{value:?}")) => why,
                Some(why) => format!("{value:?}: {why}"),
                None => format!("{value:?} is not allowed"),
            }
        }
        _ => {
            let text = error.to_string();
            let said = text.trim_start_matches("error: ").lines().take_while(|line| !line.is_empty());
            said.map(str::trim).collect::<Vec<_>>().join(" ")
        }
    }
}

/// The value of one key, as the file would spell it.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// The key.
    pub key: String,
    /// Heading under which `--help` shows the flag.
    pub heading: Option<String>,
    /// None: not set. Several: a list.
    pub texts: Vec<String>,
    /// May be a list.
    many: bool,
}

/// All keys with their values.
fn values(matches: &ArgMatches) -> Vec<Value> {
    let command = Args::command();
    // A printed configuration may be used from another folder.
    let here = std::env::current_dir().unwrap_or_default();
    let one = |arg: &Arg| {
        let text = |raw: &std::ffi::OsStr| beside(arg, raw.to_string_lossy().into_owned(), &here);
        Value {
            key: arg.get_long().unwrap_or_default().into(),
            heading: arg.get_help_heading().map(Into::into),
            texts: matches.get_raw(arg.get_id().as_str()).unwrap_or_default().map(text).collect(),
            many: matches!(arg.get_action(), ArgAction::Append),
        }
    };
    keys(&command).map(one).collect()
}

/// Numbers, true and false stand bare where that is the same text; all else is quoted.
fn spelled(text: &str) -> toml::Value {
    let number = text.parse::<i64>().ok().filter(|n| n.to_string() == text).map(toml::Value::Integer);
    let float = || text.parse::<f64>().ok().filter(|x| x.is_finite() && x.to_string() == text).map(toml::Value::Float);
    let boolean = || text.parse::<bool>().ok().map(toml::Value::Boolean);
    number.or_else(float).or_else(boolean).unwrap_or_else(|| toml::Value::String(text.into()))
}

impl Value {
    fn to_toml(&self) -> Option<toml::Value> {
        match self.texts.as_slice() {
            [] => None,
            [text] if !self.many => Some(spelled(text)),
            texts => Some(toml::Value::Array(texts.iter().map(|t| toml::Value::String(t.clone())).collect())),
        }
    }
}

/// The resolved configuration, as a file that can be used again, or as JSON.
pub fn print(values: &[Value], json: bool) -> anyhow::Result<String> {
    if json {
        let object: serde_json::Map<_, _> = values
            .iter()
            .map(|v| Ok((v.key.clone(), serde_json::to_value(v.to_toml())?)))
            .collect::<anyhow::Result<_>>()?;
        return Ok(serde_json::to_string(&object)? + "\n");
    }
    // What stands under no heading comes first, then one heading after the other, as `--help` has them.
    let mut headings = vec![None];
    for value in values {
        if !headings.contains(&value.heading.as_ref()) {
            headings.push(value.heading.as_ref());
        }
    }
    let mut text = String::new();
    for heading in headings {
        text += &heading.map_or(String::new(), |heading| format!("\n# {heading}\n"));
        for value in values.iter().filter(|v| v.heading.as_ref() == heading) {
            match value.to_toml() {
                Some(set) => text += &format!("{} = {set}\n", value.key),
                None => text += &format!("# {} is not set\n", value.key),
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
