//! Which files there are, and what is said of them.

use super::{Finding, Options, PhotosError};
use edge_vision::{FolderError, picture_paths, read_file};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a source lists, before any photo is opened.
pub(super) struct Listed {
    pub classes: Vec<String>,
    pub photos: Vec<(PathBuf, Vec<usize>)>,
    pub findings: Vec<Finding>,
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Folders by which collections are parted; a classifier that tells them apart is never wanted.
const PARTS: [&str; 8] = ["train", "training", "val", "valid", "validation", "test", "testing", "eval"];

/// The classes that were asked for, if any were.
fn asked(options: &Options) -> Result<Option<&[String]>, PhotosError> {
    let Some(classes) = &options.classes else { return Ok(None) };
    for (at, class) in classes.iter().enumerate() {
        if class.is_empty() {
            return Err(PhotosError::NamelessClass);
        }
        if classes[..at].contains(class) {
            return Err(PhotosError::ClassTwice { class: class.clone() });
        }
    }
    Ok(Some(classes))
}

fn at_least_two(classes: Vec<String>, path: &Path) -> Result<Vec<String>, PhotosError> {
    if classes.len() < 2 {
        return Err(PhotosError::OneClass { path: path.to_owned(), classes });
    }
    Ok(classes)
}

/// Lists the class folders of `root`.
pub(super) fn folder(root: &Path, options: &Options) -> Result<Listed, PhotosError> {
    let asked = asked(options)?;
    let folders = class_folders(root).map_err(|why| FolderError { path: root.to_owned(), why })?;
    let shown = || folders.iter().map(|name| name.to_string_lossy().into_owned());
    if folders.is_empty() {
        return Err(PhotosError::NoClassFolders { path: root.to_owned() });
    }
    let mut findings = Vec::new();
    let classes = match asked {
        Some(classes) => {
            if let Some(class) = classes.iter().find(|class| !folders.iter().any(|name| name == class.as_str())) {
                let (path, folders) = (root.to_owned(), shown().collect());
                return Err(PhotosError::NoSuchFolder { path, class: class.clone(), folders });
            }
            let folders: Vec<String> = shown().filter(|name| !classes.contains(name)).collect();
            if !folders.is_empty() {
                findings.push(Finding::IgnoredFolders { path: root.to_owned(), folders });
            }
            classes.to_vec()
        }
        None => {
            if shown().all(|name| PARTS.contains(&name.to_ascii_lowercase().as_str())) {
                return Err(PhotosError::SplitFolders { path: root.to_owned(), folders: shown().collect() });
            }
            let name = |name: &OsString| name.to_str().map(str::to_owned);
            let names = folders.iter().map(|f| name(f).ok_or(PhotosError::FolderName { path: root.join(f) }));
            names.collect::<Result<_, _>>()?
        }
    };
    let classes = at_least_two(classes, root)?;
    let (mut photos, mut unreadable) = (Vec::new(), Vec::new());
    for (class, name) in classes.iter().enumerate() {
        let path = root.join(name);
        let listing = picture_paths(&path);
        if listing.pictures.is_empty() {
            return Err(match listing.unreadable.into_iter().next() {
                Some(why) => why.into(),
                None => PhotosError::EmptyFolder { path },
            });
        }
        photos.extend(listing.pictures.into_iter().map(|path| (path, vec![class])));
        unreadable.extend(listing.unreadable.into_iter().map(|e| (e.path, e.why.to_string())));
    }
    let beside: Vec<PathBuf> =
        picture_paths(root).pictures.into_iter().filter(|path| path.parent() == Some(root)).collect();
    if !beside.is_empty() {
        findings.push(Finding::BesideFolders { photos: beside });
    }
    Ok(Listed { classes, photos, findings, unreadable })
}

/// Names of the folders in `root`, in byte-wise order. As with Keras' `isdir`, a link to a folder is one.
fn class_folders(root: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().is_dir() {
            names.push(entry.file_name());
        }
    }
    names.sort_by(|a, b| a.as_encoded_bytes().cmp(b.as_encoded_bytes()));
    Ok(names)
}

/// Lists the lines of a CSV.
pub(super) fn csv(path: &Path, options: &Options) -> Result<Listed, PhotosError> {
    let asked = asked(options)?;
    let mut findings = Vec::new();
    let rows = rows(path, options)?;
    let classes = match asked {
        Some(classes) => classes.to_vec(),
        None => {
            let found: BTreeSet<&String> = rows.iter().flat_map(|row| &row.labels).collect();
            let joined: Vec<String> =
                found.iter().filter(|label| label.contains(SEPARATORS)).map(|label| label.to_string()).collect();
            if !joined.is_empty() {
                findings.push(Finding::JoinedLabels { labels: joined });
            }
            found.into_iter().cloned().collect()
        }
    };
    let classes = at_least_two(classes, path)?;
    let places: HashMap<&str, usize> = classes.iter().enumerate().map(|(at, class)| (class.as_str(), at)).collect();
    let mut photos: Vec<(PathBuf, Vec<usize>)> = Vec::new();
    // The places where a file stands already: more than one only where lines contradict each other.
    let mut seen: HashMap<PathBuf, Vec<usize>> = HashMap::new();
    let mut again = Vec::new();
    for row in rows {
        let mut truth = Vec::new();
        for label in &row.labels {
            let Some(&class) = places.get(label.as_str()) else {
                let hint = if label.contains(SEPARATORS) && !options.multi_label {
                    "; labels are only separated where a photo may have many"
                } else {
                    ""
                };
                let why = format!("the label {label:?} is not among the classes {}{hint}", classes.join(", "));
                return Err(PhotosError::Line { path: path.to_owned(), line: row.line, why });
            };
            truth.push(class);
        }
        truth.sort_unstable();
        truth.dedup();
        let earlier = seen.entry(row.file.clone()).or_default();
        if earlier.iter().any(|&at| photos[at].1 == truth) {
            again.push(row.file);
        } else {
            earlier.push(photos.len());
            photos.push((row.file, truth));
        }
    }
    if !again.is_empty() {
        findings.push(Finding::ListedTwice { csv: path.to_owned(), photos: again });
    }
    Ok(Listed { classes, photos, findings, unreadable: Vec::new() })
}

/// What parts the labels of a photo that may have many.
const SEPARATORS: [char; 2] = ['|', ';'];

/// A line of a CSV.
struct Row {
    line: usize,
    file: PathBuf,
    labels: Vec<String>,
}

fn rows(path: &Path, options: &Options) -> Result<Vec<Row>, PhotosError> {
    let bytes = read_file(path).map_err(|why| PhotosError::Csv { path: path.to_owned(), why })?;
    let at = |line, why| PhotosError::Line { path: path.to_owned(), line, why };
    let newlines = |bytes: &[u8]| bytes.iter().filter(|&&b| b == b'\n').count();
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let line = 1 + newlines(&bytes[..e.valid_up_to()]);
        at(line, "this is not UTF-8 text; save the file as \"CSV UTF-8\"".into())
    })?;
    // Spreadsheets write this mark before the name of the first column.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Rows of another length get a message of their own.
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut columns = None;
    let mut rows = Vec::new();
    let (mut counted, mut line) = (0, 1);
    for record in reader.records() {
        let record = record.map_err(|e| at(line, e.to_string()))?;
        // The reader says where it was before it skipped empty lines.
        let start = record.position().map_or(counted, |p| p.byte() as usize);
        let empty = text.as_bytes()[start..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        line += newlines(&text.as_bytes()[counted..start + empty]);
        counted = start + empty;
        let Some((file_at, label_at)) = columns else {
            let Some(named) = header(&record) else {
                let found = record.iter().collect::<Vec<_>>().join(",");
                return Err(PhotosError::Header { path: path.to_owned(), found });
            };
            columns = Some(named);
            continue;
        };
        if record.len() != 2 {
            let found = record.iter().collect::<Vec<_>>().join(",");
            let why = "a name that holds a comma or a line's end must stand in quotes, and quotes must be closed";
            let count = record.len();
            return Err(at(line, format!("a file and a label are needed, not {count} values ({found:?}); {why}")));
        }
        let (name, label) = (&record[file_at], record[label_at].trim());
        let file = folder.join(name);
        match fs::metadata(&file) {
            Ok(meta) if meta.is_file() => {}
            Ok(_) => return Err(at(line, format!("{name:?} is not a file"))),
            Err(e) => return Err(at(line, format!("there is no file {name:?} in {}: {e}", shown_folder(folder)))),
        }
        let labels: Vec<String> = if options.multi_label {
            label.split(SEPARATORS).map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect()
        } else if label.is_empty() {
            return Err(at(line, format!("{name:?} has no label; give it one, or remove the line")));
        } else {
            vec![label.to_owned()]
        };
        rows.push(Row { line, file, labels });
    }
    if columns.is_none() {
        return Err(PhotosError::Header { path: path.to_owned(), found: String::new() });
    }
    if rows.is_empty() {
        return Err(PhotosError::NoRows { path: path.to_owned() });
    }
    Ok(rows)
}

fn shown_folder(folder: &Path) -> String {
    if folder.as_os_str().is_empty() { "this folder".into() } else { folder.display().to_string() }
}

/// Which columns hold the file and the label.
fn header(record: &csv::StringRecord) -> Option<(usize, usize)> {
    let is = |at: usize, names: &[&str]| {
        record.get(at).is_some_and(|name| names.iter().any(|known| known.eq_ignore_ascii_case(name.trim())))
    };
    let (file, label) = (["file", "filename", "id"], ["label", "class"]);
    let pair = |a, b| record.len() == 2 && is(a, &file) && is(b, &label);
    if pair(0, 1) {
        Some((0, 1))
    } else if pair(1, 0) {
        Some((1, 0))
    } else {
        None
    }
}
