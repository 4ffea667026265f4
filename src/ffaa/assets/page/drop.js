// A photo or video to the server, which answers with a ticket; the ticket goes to the queue.
const find = (what) => element.querySelector(what);
const video = find("video");
const picker = find("input");
let sending = null;
let stream = null;

const tell = (text, failed = false) => {
  find(".told").textContent = text;
  find(".told").classList.toggle("failed", failed);
};

const post = (path, body) => {
  if (sending || document.querySelector("#page-status .busy"))
    return tell("One file at a time: the last one is still in work. If it does not end, load the page again.", true);
  const request = new XMLHttpRequest();
  const size = body ? body.get("file").size : 0;
  if (size > props.most) return tell(`The file has more than ${Math.floor(props.most / 2 ** 20)} MiB.`, true);
  sending = request;
  request.open("POST", path);
  request.responseType = "json";
  request.upload.onprogress = (event) => tell(`Sending, ${Math.round((100 * event.loaded) / event.total)} % ...`);
  request.onloadend = () => {
    sending = null;
    picker.value = "";
    if (request.status === 200) {
      tell("");
      return trigger("submit", { ticket: request.response.ticket });
    }
    const wait = request.getResponseHeader("Retry-After");
    const why = request.response?.error?.message || "the server cannot be reached, or refused the file";
    tell(`Not sent: ${why}${wait ? ` (in ${wait} s)` : ""}.`, true);
  };
  request.send(body);
};

const send = (file, name) => {
  const body = new FormData();
  body.append("file", file, name || file.name || "photo");
  post("/page/upload", body);
};

const close = () => {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  find(".camera").hidden = true;
};

const doings = {
  camera: async () => {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch (error) {
      return tell("No camera: there is none, or the browser may not use it here.", true);
    }
    video.srcObject = stream;
    await video.play();
    find(".camera").hidden = false;
    find("[data-do=shoot]").focus();
  },
  shoot: () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => send(blob, "camera.png"), "image/png");
    close();
  },
  close,
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.do) doings[button.dataset.do]();
  if (button?.dataset.example) post(`/page/example/${button.dataset.example}`);
});
picker.addEventListener("change", () => picker.files.length && send(picker.files[0]));
const drop = find(".drop");
for (const name of ["dragover", "dragleave", "drop"]) {
  // Beside the field too: a file dropped there would otherwise take the place of the page.
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
  });
}
document.addEventListener("drop", (event) => event.dataTransfer.files.length && send(event.dataTransfer.files[0]));
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) send(event.clipboardData.files[0]);
});
