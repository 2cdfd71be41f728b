//! Makes the folder of the built web app, so that the server compiles before the app was built.

fn main() -> std::io::Result<()> {
    let app = std::path::Path::new("../../web/dist");
    std::fs::create_dir_all(app)?;
    println!("cargo::rerun-if-changed={}", app.display());
    Ok(())
}
