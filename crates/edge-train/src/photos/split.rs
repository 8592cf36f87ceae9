//! Photos for training and photos for validation.

use super::look::Looks;
use super::{Photo, PhotosError, counts};
use crate::random::Random;
use std::cell::Cell;
use std::collections::HashMap;

/// Tells the numbers of this module from others of the same seed: "split".
const STREAM: u64 = 0x73_706C_6974;

/// Parts `photos` into those to train on and those to validate with, each sorted by path.
///
/// Of each class, `fraction` of its photos, rounded, go to validation: at least one, and never the last of a class.
/// Copies of a file and photos that [look the same](Photo::looks_like) stay together, also in a chain (a like b, b
/// like c), because a network that has seen one of them knows the others. Such groups are taken whole, so a class of
/// large groups may get somewhat more or fewer than its share; one that is a single group has no validation photos,
/// which [`between`](super::between) tells.
///
/// The same photos, fraction and seed give the same parts on every machine, in whatever order the photos come: they are
/// sorted by path, byte by byte, and their groups drawn by SplitMix64 and the shuffle of Fisher and Yates. Rare classes
/// choose first, so that a photo with many labels counts where it is needed most.
///
/// # Errors
///
/// [`PhotosError::Fraction`] where `fraction` does not lie between 0 and 1.
pub fn split(mut photos: Vec<Photo>, fraction: f64, seed: u64) -> Result<(Vec<Photo>, Vec<Photo>), PhotosError> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(PhotosError::Fraction(fraction));
    }
    photos.sort_by(|a, b| {
        let key = |p: &Photo| p.path.as_os_str().as_encoded_bytes().to_vec();
        key(a).cmp(&key(b)).then_with(|| a.truth.cmp(&b.truth))
    });
    let held = drawn(&photos, fraction, seed);
    let (validation, train): (Vec<_>, Vec<_>) = photos.into_iter().zip(held).partition(|(_, held)| *held);
    let bare = |part: Vec<(Photo, bool)>| part.into_iter().map(|(photo, _)| photo).collect();
    Ok((bare(train), bare(validation)))
}

/// Photos that must not be parted.
#[derive(Default)]
struct Group {
    photos: Vec<usize>,
    /// Its photos of each class that it has any of.
    classes: Vec<(usize, usize)>,
    held: bool,
}

/// Which photos go to validation.
fn drawn(photos: &[Photo], fraction: f64, seed: u64) -> Vec<bool> {
    // Photos without any label are a class of their own here.
    let unlabelled = photos.iter().flat_map(|photo| &photo.truth).max().map_or(0, |last| last + 1);
    let mut all = counts(unlabelled, photos);
    all.push(photos.iter().filter(|photo| photo.truth.is_empty()).count());
    let wanted: Vec<usize> =
        all.iter().map(|&n| ((n as f64 * fraction).round() as usize).max(1).min(n.saturating_sub(1))).collect();
    let mut groups = groups(photos, unlabelled);
    let order = Random::new(seed, STREAM).order(groups.len());
    let mut rare_first: Vec<usize> = (0..all.len()).collect();
    rare_first.sort_by_key(|&class| all[class]);
    let mut have = vec![0; all.len()];
    let hold = |group: &mut Group, have: &mut [usize]| {
        group.classes.iter().for_each(|&(class, count)| have[class] += count);
        group.held = true;
    };
    // What fits into the share of each of its classes.
    for &class in &rare_first {
        for &at in &order {
            let group = &mut groups[at];
            let fits = |&(class, count): &(usize, usize)| have[class] + count <= wanted[class];
            if !group.held && group.classes.iter().any(|c| c.0 == class) && group.classes.iter().all(fits) {
                hold(group, &mut have);
            }
        }
    }
    // What exceeds a share by less than is missing from it.
    for &at in &order {
        let group = &mut groups[at];
        let miss = |class: usize, have: usize| have.abs_diff(wanted[class]);
        let before: usize = group.classes.iter().map(|&(class, _)| miss(class, have[class])).sum();
        let after: usize = group.classes.iter().map(|&(class, count)| miss(class, have[class] + count)).sum();
        if !group.held && after < before && leaves_some(group, &have, &all) {
            hold(group, &mut have);
        }
    }
    // A class that has none yet gets its smallest group, whatever its size.
    for &class in &rare_first {
        let possible =
            |&at: &usize| groups[at].classes.iter().any(|c| c.0 == class) && leaves_some(&groups[at], &have, &all);
        let smallest = order.iter().copied().filter(possible).min_by_key(|&at| groups[at].photos.len());
        if let (0, Some(at)) = (have[class], smallest) {
            hold(&mut groups[at], &mut have);
        }
    }
    let mut held = vec![false; photos.len()];
    groups.iter().filter(|group| group.held).flat_map(|group| &group.photos).for_each(|&at| held[at] = true);
    held
}

/// Whether every class keeps a photo to train on.
fn leaves_some(group: &Group, have: &[usize], all: &[usize]) -> bool {
    group.classes.iter().all(|&(class, count)| have[class] + count < all[class])
}

fn groups(photos: &[Photo], unlabelled: usize) -> Vec<Group> {
    let parents: Vec<Cell<usize>> = (0..photos.len()).map(Cell::new).collect();
    let mut first_of = HashMap::new();
    for (at, photo) in photos.iter().enumerate() {
        join(&parents, *first_of.entry(photo.digest).or_insert(at), at);
    }
    let looks = Looks::of(photos);
    for (at, photo) in photos.iter().enumerate() {
        // Photos that are together already needn't be compared, which keeps long series fast.
        let apart = |other| root_of(&parents, other) != root_of(&parents, at);
        looks.like(photo, at, apart).for_each(|other| join(&parents, at, other));
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut places = HashMap::new();
    for (at, photo) in photos.iter().enumerate() {
        let place = *places.entry(root_of(&parents, at)).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Group::default());
        }
        let group = &mut groups[place];
        group.photos.push(at);
        let classes = if photo.truth.is_empty() { &[unlabelled][..] } else { &photo.truth };
        for &class in classes {
            match group.classes.iter_mut().find(|c| c.0 == class) {
                Some((_, count)) => *count += 1,
                None => group.classes.push((class, 1)),
            }
        }
    }
    groups
}

/// Which photo stands for the group of `at`.
fn root_of(parents: &[Cell<usize>], mut at: usize) -> usize {
    while parents[at].get() != at {
        parents[at].set(parents[parents[at].get()].get());
        at = parents[at].get();
    }
    at
}

/// Joins the groups of two photos; the earlier photo stands for both.
fn join(parents: &[Cell<usize>], a: usize, b: usize) {
    let (a, b) = (root_of(parents, a), root_of(parents, b));
    parents[a.max(b)].set(a.min(b));
}
