//! Machines that are paused, saved and loaded.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
};

use serde_json::{Map, Value, json};

use crate::{
    memory::{self, Served},
    rules,
    state::{AFTER, Answer, BEFORE, Drive, State, check_id},
    vsock::Vsock,
};

type Body = Map<String, Value>;

fn text<'a>(body: &'a Body, name: &str) -> &'a str {
    body.get(name).and_then(Value::as_str).unwrap_or_default()
}

const DONE: Answer = (204, Value::Null);

impl State {
    pub(crate) fn patch(&mut self, path: &str, body: &Body) -> Result<Answer, String> {
        let unknown = || format!("Invalid request method and/or path: PATCH {path}.");
        match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
            None if path == "/vm" => self.run_state(body),
            Some(("drives", id)) => self.patch_drive(id, body),
            _ => Err(unknown()),
        }
    }

    fn run_state(&mut self, body: &Body) -> Result<Answer, String> {
        rules::check(rules::RUN_STATE, body, self.plan.minor())?;
        if !self.started {
            return Err(BEFORE.to_owned());
        }
        self.paused = match text(body, "state") {
            "Paused" => true,
            "Resumed" => false,
            other => return Err(format!("unknown variant `{other}`, expected `Paused` or `Resumed`")),
        };
        Ok(DONE)
    }

    /// The guest is told that its disk has another size.
    fn patch_drive(&mut self, id: &str, body: &Body) -> Result<Answer, String> {
        rules::check(rules::PATCH_DRIVE, body, self.plan.minor())?;
        check_id(id, text(body, "drive_id"))?;
        if !self.started {
            return Err(BEFORE.to_owned());
        }
        let drive = self.drives.get_mut(id).ok_or("Invalid block device ID!")?;
        drive.swap(text(body, "path_on_host"))?;
        // A guest that runs sees it.
        if let Some(served) = self.served.as_ref().filter(|_| !self.paused) {
            served.touch()?;
        }
        Ok(DONE)
    }

    /// Writes memory as large as the machine's, and what the fake knows.
    pub(crate) fn save(&mut self, body: &Body) -> Result<Answer, String> {
        rules::check(rules::SAVE, body, self.plan.minor())?;
        if !self.started {
            return Err(BEFORE.to_owned());
        }
        if !self.paused {
            return Err("Cannot create snapshot: the microVM is not paused.".to_owned());
        }
        if self.boots {
            return Ok(DONE);
        }
        let failed = |e: std::io::Error| format!("Cannot create snapshot: {e}");
        if let Some(target) = &self.plan.saves_links {
            for name in ["mem_file_path", "snapshot_path"] {
                symlink(target, text(body, name)).map_err(failed)?;
            }
            return Ok(DONE);
        }
        let memory = File::create(text(body, "mem_file_path")).map_err(failed)?;
        memory::save(&memory, self.memory_mib << 20).map_err(failed)?;
        fs::write(text(body, "snapshot_path"), self.description().to_string()).map_err(failed)?;
        Ok(DONE)
    }

    /// What is known of a machine that is saved.
    pub(crate) fn description(&self) -> Value {
        json!({
            "version": self.plan.version,
            "memory_mib": self.memory_mib,
            "huge_pages": self.huge,
            "drives": self.drives,
            "vsock": self.vsock_path,
        })
    }

    /// A process that cannot load ends.
    pub(crate) fn load(&mut self, body: &Body) -> Result<Answer, String> {
        let loaded = self.try_load(body);
        self.broken = loaded.is_err();
        loaded
    }

    fn try_load(&mut self, body: &Body) -> Result<Answer, String> {
        rules::check(rules::LOAD, body, self.plan.minor())?;
        if self.started || self.configured {
            return Err(AFTER.to_owned());
        }
        let failed = |what: &str| format!("Load snapshot error: {what}");
        let backend =
            body.get("mem_backend").and_then(Value::as_object).ok_or_else(|| failed("no backend"))?;
        rules::check(rules::BACKEND, backend, self.plan.minor())?;
        let state = fs::read(text(body, "snapshot_path")).map_err(|e| failed(&e.to_string()))?;
        let state: Value = serde_json::from_slice(&state).map_err(|e| failed(&e.to_string()))?;
        if state["version"] != self.plan.version.as_str() {
            return Err(failed("the snapshot is of another version"));
        }
        self.memory_mib = state["memory_mib"].as_u64().unwrap_or_default();
        self.huge = state["huge_pages"] == true;
        let path = text(backend, "backend_path");
        match text(backend, "backend_type") {
            "File" if self.huge => {
                return Err(failed(
                    "Cannot restore hugetlbfs backed snapshot by mapping the memory file. Please use uffd.",
                ));
            }
            "File" => {
                let memory = fs::metadata(path).map_err(|e| failed(&e.to_string()))?;
                if memory.len() != self.memory_mib << 20 {
                    return Err(failed("the memory file has another size"));
                }
            }
            "Uffd" => {
                let served =
                    Served::load(path, self.memory_mib << 20, self.huge, self.plan.memory, self.boots);
                self.served = Some(served.map_err(|problem| failed(&problem))?);
            }
            other => return Err(failed(&format!("unknown variant `{other}`, expected `File` or `Uffd`"))),
        }
        let drives: BTreeMap<String, Drive> =
            serde_json::from_value(state["drives"].clone()).map_err(|e| failed(&e.to_string()))?;
        for (id, drive) in drives {
            self.drives.insert(id, drive.reopen().map_err(|e| failed(&e))?);
        }
        if let Some(path) = state["vsock"].as_str() {
            self.vsock_path = Some(path.to_owned());
            self.vsock = Some(Vsock::bind(Path::new(path)).map_err(|e| failed(&e.to_string()))?);
            // Its agent has reported before it was saved.
            self.plan.reports = false;
        }
        self.started = true;
        self.paused = body.get("resume_vm") != Some(&Value::Bool(true));
        Ok(DONE)
    }
}
