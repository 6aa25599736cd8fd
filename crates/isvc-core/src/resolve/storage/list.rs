//! `storageUris`: several models, each with its place. The rules for places by themselves are checked by validation.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{api::Object, named, names, rejection::Rejection, settings::OciModelMode, validate::INVALID_SPEC};

use super::{
    super::credentials,
    Request, claim_mount, claim_volume, container,
    image::{self, Image},
    initializer::{Download, Initializer},
    list_entry, pod,
    source::{self, Source},
};

/// Most images in one Pod.
const MOST_IMAGES: usize = 10;

/// A claim and its place.
struct Claim<'a> {
    name: &'a str,
    sub_path: &'a str,
    path: &'a str,
    volume: String,
}

/// The models by what brings them.
#[derive(Default)]
struct Sorted<'a> {
    images: Vec<Image<'a>>,
    claims: Vec<Claim<'a>>,
    downloads: Vec<Download<'a>>,
    /// The directory all downloads are below, and its volume.
    place: Option<(String, String)>,
}

/// Brings all models of the list.
pub(super) fn bring(pod: &mut Object, request: &Request<'_>) -> Result<(), Rejection> {
    let list = &request.component.storage_uris;
    let Some(first) = list.first() else { return Ok(()) };
    let sorted = sort(request)?;
    // The first URI alone decides, as in KServe.
    let overlay = container::find_for_list(&first.uri, request)?;
    let present = named::has(pod, "initContainers", names::STORAGE_INITIALIZER);
    for (index, image) in sorted.images.iter().enumerate() {
        image::attach(pod, index, image, request)?;
    }
    if present {
        return Ok(());
    }
    for claim in &sorted.claims {
        named::add(pod, "volumes", claim_volume(&claim.volume, claim.name));
        pod::mount(pod, &claim_mount(request, &claim.volume, claim.path, claim.sub_path))?;
    }
    let mut initializer = None;
    if let Some((path, volume)) = &sorted.place {
        let credentials = credentials::of_storage(list_entry(request.component), request.component, request.observed)?;
        let place = (volume.as_str(), path.as_str());
        initializer = Some(Initializer::download(
            &sorted.downloads,
            place,
            credentials,
            overlay.as_deref(),
            request,
        )?);
        pod::mount(pod, &request.mount(volume, path))?;
    }
    let fetched: Vec<_> = sorted
        .images
        .iter()
        .filter(|image| image.mode == OciModelMode::Fetch)
        .collect();
    if !fetched.is_empty() {
        initializer = Some(Initializer::fetch(initializer, &fetched, pod, request));
        for image in fetched {
            image::mount_fetched(pod, image)?;
        }
    }
    if let Some(initializer) = initializer {
        initializer.place(pod);
    }
    Ok(())
}

fn sort<'a>(request: &Request<'a>) -> Result<Sorted<'a>, Rejection> {
    let mut sorted = Sorted::default();
    let mut volumes = Volumes::default();
    let initializer = &request.observed.settings.storage_initializer;
    for listed in &request.component.storage_uris {
        let path = listed.mount_path.as_deref().unwrap_or(names::MODEL_PATH);
        match Source::of(&listed.uri, initializer) {
            Source::Image { mode, reference } => sorted.images.push(Image {
                mode,
                reference,
                // A link cannot be made at a path that ends in a slash.
                path: path.trim_end_matches('/'),
                volume: volumes.of(path),
            }),
            Source::Claim { claim, sub_path } => sorted.claims.push(Claim {
                name: claim,
                sub_path,
                path,
                volume: volumes.of(path),
            }),
            Source::Download => sorted.downloads.push(Download { uri: &listed.uri, path }),
        }
    }
    if sorted.images.len() > MOST_IMAGES {
        return Err(reject(
            request,
            &format!(
                "{} models in images are too many; {MOST_IMAGES} are supported",
                sorted.images.len()
            ),
        ));
    }
    sorted.place = common_directory(&sorted.downloads).map(|path| {
        let volume = volumes.of(&path);
        (path, volume)
    });
    check_mounts(&sorted, request)?;
    Ok(sorted)
}

fn reject(request: &Request<'_>, message: &str) -> Rejection {
    Rejection::new(
        INVALID_SPEC,
        format!("{}: {message}", request.component.field("storageUris")),
    )
    .event(message)
}

/// The directory that downloads share: one volume is mounted there. Of a single one it is its own. Validation has made
/// sure that they share more than the root.
fn common_directory(downloads: &[Download<'_>]) -> Option<String> {
    let (first, others) = downloads.split_first()?;
    let mut common = PathBuf::from(first.path);
    for other in others {
        while !Path::new(other.path).starts_with(&common) && common.pop() {}
    }
    Some(common.to_string_lossy().into_owned())
}

/// A path takes one mount.
fn check_mounts(sorted: &Sorted<'_>, request: &Request<'_>) -> Result<(), Rejection> {
    let images = sorted.images.iter().map(|image| (image.mount_path(), image.path));
    let claims = sorted.claims.iter().map(|claim| (claim.path, claim.path));
    let place = sorted.place.iter().map(|(path, _)| (path.as_str(), path.as_str()));
    // As paths: /a and //a/ are one directory.
    let mut taken: BTreeMap<&Path, &str> = BTreeMap::new();
    for (mount, path) in images.chain(claims).chain(place) {
        if let Some(other) = taken.insert(Path::new(mount), path) {
            return Err(reject(
                request,
                &format!("{other} and {path} would both need a volume at {mount}; give them different directories"),
            ));
        }
    }
    Ok(())
}

/// Names of volumes, which differ where paths do. A path comes once, or [`check_mounts`] refuses the list.
#[derive(Default)]
struct Volumes(BTreeSet<String>);

impl Volumes {
    fn of(&mut self, path: &str) -> String {
        let name = source::volume_name(path);
        if self.0.insert(name.clone()) {
            name
        } else {
            source::digested_volume_name(path)
        }
    }
}
