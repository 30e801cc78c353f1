//! `kintsugi image`: the images of the nodes of a data directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::Host;
use runtime::images::{Single, Store};

use crate::place::Place;
use crate::settings::{DataDir, ImageAct};

/// The name of the demo's web image.
pub const DEMO_IMAGE: &str = "kintsugi.dev/demo/web:latest";

/// Does what was asked for on every node's images; gives the lines to print.
pub async fn run(host: &Host, act: ImageAct) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    match act {
        ImageAct::Import { data, files } => {
            for store in stores(host, &data)? {
                for file in &files {
                    let images = store
                        .import(file)
                        .await
                        .with_context(|| format!("cannot import {}", file.display()))?;
                    lines.extend(images.iter().map(|image| format!("imported {}", image.tags.join(" "))));
                }
            }
        }
        ImageAct::Demo { data } => {
            for store in stores(host, &data)? {
                build_demo(&store).await?;
            }
            lines.push(format!("built {DEMO_IMAGE}"));
        }
        ImageAct::List { data } => {
            for store in stores(host, &data)? {
                for image in store.list().await? {
                    lines.push(format!(
                        "{}\t{}\t{} MB",
                        image.tags.join(" "),
                        image.id,
                        image.size / 1_000_000
                    ));
                }
            }
        }
        ImageAct::Pull { data, images } => {
            for store in stores(host, &data)? {
                for image in &images {
                    let pulled = store.pull(image, &[]).await?;
                    lines.push(format!("pulled {image} {}", pulled.id));
                }
            }
        }
        ImageAct::Remove { data, images } => {
            for store in stores(host, &data)? {
                for image in &images {
                    store.remove(image).await?;
                    lines.push(format!("removed {image}"));
                }
            }
        }
    }
    lines.dedup();
    Ok(lines)
}

/// Makes the demo's image out of this very program.
pub async fn build_demo(store: &Store) -> Result<()> {
    let binary = std::env::current_exe().context("cannot find the program's own file")?;
    let target = PathBuf::from("/kintsugi");
    let single = Single {
        binary,
        entrypoint: vec![target.display().to_string(), "web".to_owned()],
        target,
        name: DEMO_IMAGE.to_owned(),
        command: vec!["8080".to_owned()],
        env: Vec::new(),
    };
    store.build_single(single).await.context("cannot build the demo's image")?;
    Ok(())
}

/// The image stores of all nodes; that of the first one where there is none yet.
fn stores(host: &Host, data: &DataDir) -> Result<Vec<Store>> {
    let place = Place::open(&data.data_dir)?;
    let mut nodes = place.nodes();
    if nodes.is_empty() {
        nodes.push(place.node(1));
    }
    nodes.iter().map(|dir| Ok(open(host, dir)?.trusting(Some(place.registry_certs())))).collect()
}

fn open(host: &Host, dir: &Path) -> Result<Store> {
    std::fs::create_dir_all(dir)?;
    Store::open(host.clone(), dir).with_context(|| format!("cannot open the images in {}", dir.display()))
}
