//! Taking a recording into the repository: one YAML file for each expectation instead of a folder of JSON files.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{Case, Error, Recording};

/// Files of a case that are taken as they are.
fn is_copied(name: &str) -> bool {
    name == "case.yaml" || name.starts_with("input-") || name.starts_with("rejected")
}

/// Writes the recording `from` to the folder `to` in the compact form, removes cases and configurations from there that
/// `from` does not have, and reads everything back: what is written is what was read, or it fails. The accepted
/// differences in `to` stay. Gives the number of cases.
///
/// # Errors
///
/// When something cannot be read or written, or does not come back as it was.
pub fn import(from: &Recording, to: &Path) -> Result<usize, Error> {
    let cases = from.cases()?;
    let target = Recording::at(to);
    copy_folder(&from.root().join("config"), &to.join("config"), |_| true)?;
    let cluster = from.root().join("cluster.yaml");
    let cluster = if cluster.is_file() {
        cluster
    } else {
        from.root().join("cluster/base.yaml")
    };
    fs::copy(&cluster, to.join("cluster.yaml")).map_err(Error::io(&cluster))?;
    let folders: BTreeSet<&str> = cases.iter().map(|case| case.folder.as_str()).collect();
    remove_others(&to.join("cases"), |name| folders.contains(name))?;
    for case in &cases {
        let folder = to.join("cases").join(&case.folder);
        copy_folder(case.path(), &folder, is_copied)?;
        for name in case.steps.iter().filter_map(|step| step.expect.as_deref()) {
            let file = folder.join(format!("{name}.yaml"));
            let text = serde_saphyr::to_string(&case.expectation(name)?)
                .map_err(|error| Error::content(&file, error.to_string()))?;
            fs::write(&file, text).map_err(Error::io(&file))?;
        }
        let expected = |name: &str| case.steps.iter().any(|step| step.expect.as_deref() == Some(name));
        remove_others(&folder, |name| {
            name.strip_suffix(".yaml").is_some_and(expected) || case.path().join(name).is_file() && is_copied(name)
        })?;
    }
    check(from, &target, &cases)?;
    Ok(cases.len())
}

/// Whether the copy says what the original says.
fn check(from: &Recording, to: &Recording, cases: &[Case]) -> Result<(), Error> {
    let lost = |path: &Path| Error::content(path, "it does not read as what it was made of");
    if from.cluster()? != to.cluster()? {
        return Err(lost(to.root()));
    }
    let copies = to.cases()?;
    if copies.len() != cases.len() {
        return Err(lost(to.root()));
    }
    for (case, copy) in cases.iter().zip(&copies) {
        let same_head = (&case.folder, &case.id, &case.steps, &case.config)
            == (&copy.folder, &copy.id, &copy.steps, &copy.config)
            && from.config(&case.config)? == to.config(&copy.config)?;
        if !same_head {
            return Err(lost(copy.path()));
        }
        for step in &case.steps {
            if let Some(name) = &step.expect
                && case.expectation(name)? != copy.expectation(name)?
            {
                return Err(lost(&copy.path().join(name)));
            }
            if let Some(file) = &step.expect_rejected
                && case.refusal(file)? != copy.refusal(file)?
            {
                return Err(lost(&copy.path().join(file)));
            }
            if let Some(crate::Action::Apply(file)) = &step.action
                && case.input(file)? != copy.input(file)?
            {
                return Err(lost(&copy.path().join(file)));
            }
        }
    }
    Ok(())
}

/// Copies the files of a folder that are wanted, and removes others from the copy only where nothing else belongs there.
fn copy_folder(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(Error::io(to))?;
    for entry in from.read_dir().map_err(Error::io(from))? {
        let path = entry.map_err(Error::io(from))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && wanted(&name) {
            let text = fs::read(&path).map_err(Error::io(&path))?;
            let copy = to.join(&name);
            // Not `fs::copy`, which would take a write protection along.
            fs::write(&copy, text).map_err(Error::io(&copy))?;
        }
    }
    Ok(())
}

fn remove_others(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in folder.read_dir().map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if wanted(&name) {
            continue;
        }
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(Error::io(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::json;

    use super::{Recording, import};

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder");
        fs::write(path, text).expect("written");
    }

    fn recording(root: &Path) {
        write(root, "config/base.yaml", "kind: ConfigMap\ndata: {a: 'n'}\n");
        write(root, "cluster/base.yaml", "kind: A\n---\nkind: B\n");
        let case = "id: '001'\ndescription: d\ntier: A\narea: x\nconfig: base.yaml\nnamespace: g001\nsteps:\n\
                    - apply: input-1.yaml\n  expect: expect-1\n- apply: input-1.yaml\n  expectRejected: rejected.txt\n";
        write(root, "cases/001-one/case.yaml", case);
        write(
            root,
            "cases/001-one/input-1.yaml",
            "kind: Secret\nstringData: {n: 'no', on: \"1\\n\"}\n",
        );
        write(root, "cases/001-one/rejected.txt", "no: it is not\n");
        let object = json!({"n": "no", "texts": ["y", "1", "1e3", "", " a ", "~", "null", "a: b", "#", "<time>", "- x"],
            "long": "word ".repeat(60), "lines": "a\n  b\n\nc\n", "numbers": [1, 1.5, -1], "empty": [{}, [], null], "t": true});
        write(root, "cases/001-one/expect-1/service.m.json", &object.to_string());
        write(root, "cases/001-one/expect-1/service.a.b.json", "{}");
        write(root, "cases/001-one/expect-1/events.json", "[]");
    }

    #[test]
    fn both_layouts_read_alike_and_nothing_is_lost() {
        let (from, to) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        recording(from.path());
        write(to.path(), "accepted.yaml", "accepted: []\n");
        write(to.path(), "cases/000-gone/case.yaml", "what was here before\n");
        write(to.path(), "cases/001-one/expect-9.yaml", "what was here before\n");
        let (from, copy) = (Recording::at(from.path()), Recording::at(to.path()));
        assert_eq!(import(&from, to.path()).expect("imported"), 1);

        let (cases, copies) = (from.cases().expect("cases"), copy.cases().expect("cases"));
        assert_eq!(copies.len(), 1, "others are gone");
        let expected = cases[0].expectation("expect-1").expect("read");
        assert_eq!(expected.len(), 3);
        assert_eq!(copies[0].expectation("expect-1").expect("read"), expected);
        assert_eq!(copies[0].steps, cases[0].steps);
        assert_eq!(copies[0].refusal("rejected.txt").expect("read"), "no: it is not");
        assert!(!to.path().join("cases/001-one/expect-9.yaml").exists());
        assert!(to.path().join("accepted.yaml").exists());
        assert_eq!(
            copy.cluster().expect("read"),
            [json!({"kind": "A"}), json!({"kind": "B"})]
        );
        // The compact form can be imported, too.
        let again = tempfile::tempdir().expect("a folder");
        import(&copy, again.path()).expect("imported");
        assert_eq!(Recording::at(again.path()).cases().expect("cases").len(), 1);
    }

    #[test]
    fn a_case_that_is_not_understood_is_named() {
        let root = tempfile::tempdir().expect("a folder");
        recording(root.path());
        write(root.path(), "cases/002-two/case.yaml", "id: '002'\n");
        let error = Recording::at(root.path())
            .cases()
            .expect_err("it is incomplete")
            .to_string();
        assert!(error.contains("002-two") && error.contains("description"), "{error}");
    }
}
