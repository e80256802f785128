// Sends a file in pieces, the next one once the kernel has taken the last: Jupyter silently drops the
// connection when a message is larger than 10 MB.

const PIECE_BYTES = 2 * 1024 * 1024;
const PATIENCE_MS = 30_000;
const ACCEPT =
  "audio/*,video/*,.wav,.wave,.flac,.mp3,.ogg,.oga,.opus,.aif,.aiff,.aifc,.caf,.rf64,.w64,.au," +
  ".m4a,.aac,.mp4,.m4v,.mov,.mkv,.webm,.wma";

// crypto.randomUUID exists only over https and on localhost.
const newId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");

// One per model: it continues when a view of the model is removed.
class Sender {
  constructor(model) {
    this.model = model;
    this.job = null;
    this.cancelled = null;
    this.note = "";
    this.refusal = "";
    this.listeners = new Set();
    this.onMessage = (content) => this.hear(content);
    this.onState = () => {
      this.note = "";
      this.refusal = "";
      this.changed();
    };
    model.on("msg:custom", this.onMessage);
    model.on("change:state", this.onState);
  }

  get busy() {
    return this.job !== null || this.model.get("state") === "uploading";
  }

  changed() {
    for (const listener of this.listeners) listener();
  }

  choose(files) {
    if (files.length === 0) return;
    if (this.busy || files.length > 1) {
      this.refusal = this.busy
        ? "A file is being uploaded. Wait for it, or cancel it."
        : "One file at a time, please.";
      this.changed();
      return;
    }
    const file = files[0];
    const job = { id: newId(), file, offset: 0, end: 0, timer: undefined };
    this.job = job;
    this.note = "";
    this.refusal = "";
    this.model.send({ kind: "start", id: job.id, name: file.name, size: file.size });
    this.expectAnswer(job);
    this.changed();
  }

  cancel() {
    const id = this.job?.id ?? this.model.get("_upload_id");
    this.drop();
    this.cancelled = id;
    this.note = "Cancelling; the kernel has yet to answer.";
    this.model.send({ kind: "cancel", id });
    this.changed();
  }

  drop() {
    clearTimeout(this.job?.timer);
    this.job = null;
  }

  expectAnswer(job) {
    clearTimeout(job.timer);
    job.timer = setTimeout(() => {
      this.note =
        `The kernel has not answered for ${PATIENCE_MS / 1000} seconds: it is busy, or gone. ` +
        "Still waiting for it; Cancel ends the upload.";
      // The piece may have been lost with a connection that was then restored.
      if (job.end > 0) this.model.send({ kind: "where", id: job.id, offset: job.offset });
      this.expectAnswer(job);
      this.changed();
    }, PATIENCE_MS);
  }

  hear(content) {
    if (content.id === this.cancelled) {
      // The cancel overtook the start.
      if (content.kind === "ack") this.model.send({ kind: "cancel", id: content.id });
      else this.note = "";
      this.changed();
      return;
    }
    // Other messages are for another page, or come too late.
    const job = this.job;
    if (job === null || content.id !== job.id) return;
    if (content.kind === "ack") {
      const lost = content.asked === job.offset && content.offset === job.offset;
      if (content.offset !== job.end && !lost) return;
      this.note = "";
      clearTimeout(job.timer);
      if (content.offset < job.file.size) {
        job.offset = content.offset;
        job.end = Math.min(job.offset + PIECE_BYTES, job.file.size);
        this.sendPiece(job);
      }
    } else {
      this.drop();
      this.note = "";
      if (content.kind === "refused") this.refusal = content.message;
      else if (content.state === "unknown")
        this.refusal = "The kernel does not know this upload any more. Choose the file again.";
    }
    this.changed();
  }

  async sendPiece(job) {
    const { offset, end } = job;
    let bytes = null;
    try {
      bytes = await job.file.slice(offset, end).arrayBuffer();
    } catch {
      // The file was removed or changed since it was chosen.
    }
    if (this.job !== job) return;
    if (bytes?.byteLength === end - offset)
      this.model.send({ kind: "piece", id: job.id, offset }, undefined, [bytes]);
    else this.model.send({ kind: "unreadable", id: job.id });
    this.expectAnswer(job);
  }

  dispose() {
    this.drop();
    this.listeners.clear();
    this.model.off("msg:custom", this.onMessage);
    this.model.off("change:state", this.onState);
  }
}

function render({ model, el, sender }) {
  const make = (tag, properties, parent) => {
    const element = parent.appendChild(Object.assign(document.createElement(tag), properties));
    // Keys pressed here are not shortcuts of JupyterLab, which checks the focused element itself.
    element.dataset.lmSuppressShortcuts = "true";
    return element;
  };
  const root = make("div", { className: "stemlab-upload" }, el);
  const row = make("div", { className: "stemlab-row" }, root);
  const button = make("button", { type: "button", textContent: "Upload a song…" }, row);
  const input = make("input", { type: "file", accept: ACCEPT, tabIndex: -1 }, row);
  input.setAttribute("aria-hidden", "true");
  const bar = make("progress", { max: 1, value: 0 }, row);
  bar.setAttribute("aria-label", "Share of the song that has arrived");
  // Outside the status, so that a screen reader does not speak every piece.
  const share = make("span", {}, row);
  const cancel = make("button", { type: "button", textContent: "Cancel" }, row);
  const status = make("div", {}, root);
  status.setAttribute("role", "status");
  const alert = make("div", {}, root);
  alert.setAttribute("role", "alert");

  // Setting the same text would make a screen reader speak it again.
  const say = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  const draw = () => {
    const uploading = model.get("state") === "uploading";
    const focused = root.getRootNode().activeElement;
    button.disabled = sender.busy;
    bar.hidden = share.hidden = !uploading;
    cancel.hidden = !sender.busy;
    // Otherwise keyboard users lose the focus.
    if (focused === button && sender.busy) cancel.focus();
    if (focused === cancel && !sender.busy) button.focus();
    bar.value = model.get("progress");
    say(share, `${Math.floor(100 * model.get("progress"))} %`);
    const elsewhere =
      uploading && sender.job === null
        ? " Another page sends it; if that page is closed, cancel."
        : "";
    say(status, sender.note || model.get("message") + elsewhere);
    const error = sender.refusal || model.get("error");
    say(alert, error ? `Error: ${error}` : "");
  };

  const listeners = new AbortController();
  const on = (element, name, action) =>
    element.addEventListener(name, action, { signal: listeners.signal });
  const dropping = (event, active) => {
    // Otherwise the page opens the file, or JupyterLab takes it.
    event.preventDefault();
    event.stopPropagation();
    root.classList.toggle("stemlab-dropping", active);
  };
  on(button, "click", () => input.click());
  on(cancel, "click", () => sender.cancel());
  on(input, "change", () => {
    sender.choose([...input.files]);
    // Choosing the same file again is a change as well.
    input.value = "";
  });
  on(root, "dragover", (event) => dropping(event, !sender.busy));
  on(root, "dragleave", (event) => dropping(event, false));
  on(root, "drop", (event) => {
    dropping(event, false);
    sender.choose([...event.dataTransfer.files]);
  });

  const shown = ["progress", "message", "error"].map((name) => `change:${name}`);
  for (const event of shown) model.on(event, draw);
  sender.listeners.add(draw);
  draw();
  return () => {
    listeners.abort();
    for (const event of shown) model.off(event, draw);
    sender.listeners.delete(draw);
    root.remove();
  };
}

export default () => {
  let sender;
  return {
    initialize({ model }) {
      sender = new Sender(model);
      return () => sender.dispose();
    },
    render: ({ model, el }) => render({ model, el, sender }),
  };
};
