//! A file system whose power goes.

use crate::random::{Loss, Random};
use edge_package::Storage;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    /// Index of its content.
    File(usize),
}

/// A change of a folder that the medium need not have yet.
#[derive(Debug, Clone)]
enum Change {
    Link(PathBuf, Node),
    Rename(PathBuf, PathBuf, Node),
    Unlink(PathBuf),
}

impl Change {
    fn folder(&self) -> &Path {
        let (Change::Link(path, _) | Change::Rename(_, path, _) | Change::Unlink(path)) = self;
        path.parent().unwrap()
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Change::Link(path, node) => drop(names.insert(path.clone(), *node)),
            Change::Rename(from, to, node) => {
                names.retain(|path, n| path != from || n != node);
                names.insert(to.clone(), *node);
            }
            Change::Unlink(path) => drop(names.remove(path)),
        }
    }
}

#[derive(Debug, Clone)]
struct Content {
    seen: Vec<u8>,
    /// What was synced; `None` where nothing ever was.
    durable: Option<Vec<u8>>,
}

#[derive(Clone)]
struct State {
    seen: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    unsynced: Vec<Change>,
    contents: Vec<Content>,
    operations: usize,
    syncs: usize,
    cut: Option<usize>,
    dead: bool,
    ignored_sync: Option<usize>,
}

/// A file system where content is durable once its file was synced, and a name once its folder was; before that, any
/// of it may be, in any order, and content in part. Clones are the same file system.
#[derive(Clone)]
pub struct SimFiles(Rc<RefCell<State>>);

impl SimFiles {
    /// With the folder `/`.
    pub fn new() -> SimFiles {
        let root = BTreeMap::from([(PathBuf::from("/"), Node::Folder)]);
        SimFiles(Rc::new(RefCell::new(State {
            seen: root.clone(),
            durable: root,
            unsynced: vec![],
            contents: vec![],
            operations: 0,
            syncs: 0,
            cut: None,
            dead: false,
            ignored_sync: None,
        })))
    }

    /// Another file system with the same content.
    pub fn fork(&self) -> SimFiles {
        SimFiles(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// The power goes at this operation, counted from now; the first one is 0.
    pub fn cut_at(&self, operation: usize) {
        let mut state = self.0.borrow_mut();
        (state.operations, state.cut) = (0, Some(operation));
    }

    /// The sync that does nothing, counted from now: what a test for the tests breaks.
    pub fn ignore_sync(&self, sync: usize) {
        let mut state = self.0.borrow_mut();
        (state.syncs, state.ignored_sync) = (0, Some(sync));
    }

    /// Operations since the last call.
    pub fn operations(&self) -> usize {
        std::mem::take(&mut self.0.borrow_mut().operations)
    }

    /// Syncs since the last call that had something to do.
    pub fn syncs(&self) -> usize {
        std::mem::take(&mut self.0.borrow_mut().syncs)
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.0.borrow().seen.values().filter(|n| matches!(n, Node::File(_))).count()
    }

    /// The file system after the power went and came back.
    pub fn after_the_cut(&self, seed: u64) -> SimFiles {
        let mut state = self.0.borrow().clone();
        let mut random = Random::new(seed);
        let loss = Loss::of(seed);
        let mut changes = std::mem::take(&mut state.unsynced);
        let late = random.below(changes.len() + 1);
        match loss {
            Loss::All => changes.clear(),
            Loss::Nothing => {}
            Loss::Some => changes.retain(|_| random.coin()),
            Loss::Early => drop(changes.drain(..late)),
            Loss::Torn => {
                changes.retain(|_| random.below(3) > 0);
                random.shuffle(&mut changes);
            }
        }
        changes.iter().for_each(|change| change.apply(&mut state.durable));
        // A name in a folder that is not there is not there.
        let there = state.durable.clone();
        let folder = |path: &Path| path.ancestors().skip(1).all(|a| there.get(a) == Some(&Node::Folder));
        state.durable.retain(|path, _| folder(path));
        for content in &mut state.contents {
            if content.durable.as_ref() == Some(&content.seen) {
                continue;
            }
            let old = content.durable.clone().unwrap_or_default();
            let mut now = content.seen.clone();
            match random.below(4) {
                _ if loss == Loss::Nothing => {}
                0 => now = old,
                1 => now.truncate(random.below(now.len() + 1)),
                // The length is there, and blocks of it are not.
                2 => now.chunks_mut(512).for_each(|block| {
                    if random.coin() {
                        block.fill(0);
                    }
                }),
                _ => {}
            }
            *content = Content { durable: Some(now.clone()), seen: now };
        }
        state.seen = state.durable.clone();
        (state.operations, state.syncs) = (0, 0);
        (state.cut, state.dead, state.ignored_sync) = (None, false, None);
        SimFiles(Rc::new(RefCell::new(state)))
    }

    fn operation<T>(&self, run: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.borrow_mut();
        let gone = || io::Error::other("there is no power");
        if state.dead {
            return Err(gone());
        }
        state.dead = state.cut == Some(state.operations);
        state.operations += 1;
        let done = run(&mut state)?;
        if state.dead { Err(gone()) } else { Ok(done) }
    }

    /// A sync happens wholly before the power goes or not at all.
    fn sync(&self, run: impl FnOnce(&mut State)) -> io::Result<()> {
        self.operation(|state| {
            state.syncs += 1;
            if !state.dead && state.ignored_sync != Some(state.syncs - 1) {
                run(state);
            }
            Ok(())
        })
    }
}

impl State {
    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.seen.get(path) {
            Some(Node::File(content)) => Ok(*content),
            Some(Node::Folder) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        if self.seen.get(change.folder()) != Some(&Node::Folder) {
            return Err(ErrorKind::NotFound.into());
        }
        change.apply(&mut self.seen);
        self.unsynced.push(change);
        Ok(())
    }
}

impl Storage for SimFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.0.borrow();
        if state.dead {
            return Err(io::Error::other("there is no power"));
        }
        Ok(state.contents[state.file(path)?].seen.clone())
    }

    fn is_file(&self, path: &Path) -> bool {
        self.0.borrow().file(path).is_ok()
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.operation(|state| match state.seen.get(path) {
            Some(Node::Folder) => Ok(()),
            Some(Node::File(_)) => Err(ErrorKind::AlreadyExists.into()),
            None => state.change(Change::Link(path.into(), Node::Folder)),
        })
    }

    fn create(&self, path: &Path, bytes: &[u8], _mode: u32) -> io::Result<()> {
        self.operation(|state| {
            if state.seen.contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            state.contents.push(Content { seen: bytes.to_vec(), durable: None });
            let node = Node::File(state.contents.len() - 1);
            state.change(Change::Link(path.into(), node))
        })
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let content = self.0.borrow().file(path)?;
        self.sync(|state| {
            let content = &mut state.contents[content];
            content.durable = Some(content.seen.clone());
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "names move within a folder only");
        self.operation(|state| {
            let node = Node::File(state.file(from)?);
            state.change(Change::Rename(from.into(), to.into(), node))
        })
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        if !self.0.borrow().unsynced.iter().any(|c| c.folder() == path) {
            return self.operation(|_| Ok(()));
        }
        self.sync(|state| {
            let (here, elsewhere) = std::mem::take(&mut state.unsynced).into_iter().partition(|c| c.folder() == path);
            state.unsynced = elsewhere;
            let here: Vec<Change> = here;
            here.iter().for_each(|change| change.apply(&mut state.durable));
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operation(|state| {
            state.file(path)?;
            state.change(Change::Unlink(path.into()))
        })
    }
}

#[test]
fn names_and_content_are_durable_each_by_its_own_sync() {
    let files = SimFiles::new();
    let [a, b] = ["/a", "/b"].map(Path::new);
    files.create(a, &[7; 2000], 0o644).unwrap();
    let outcomes = |files: &SimFiles| {
        let after = (0..300).map(|seed| files.after_the_cut(seed));
        after.map(|f| (f.read(a).ok(), f.read(b).ok())).collect::<std::collections::BTreeSet<_>>()
    };
    let whole = Some(vec![7; 2000]);
    let torn = outcomes(&files);
    assert!(torn.len() > 5 && torn.contains(&(None, None)) && torn.contains(&(whole.clone(), None)));
    files.sync_file(a).unwrap();
    assert_eq!(outcomes(&files).len(), 2, "there, or not");
    files.rename(a, b).unwrap();
    // Even a rename comes before the name that it renames.
    assert!(outcomes(&files).contains(&(whole.clone(), whole.clone())));
    files.sync_folder(Path::new("/")).unwrap();
    assert_eq!(outcomes(&files), [(None, whole)].into());
}
