// Shows a result: which face is looked at is settled here, and the downloads are made here; the server keeps nothing.
const article = element.querySelector(".report");
const chooser = element.querySelector(".faces");
const tools = element.querySelector(".tools");

const choose = (number) => {
  const faces = article.querySelectorAll("article > section.face"); // the last one may hold all that have none of their own
  faces.forEach((face, at) => (face.hidden = at !== Math.min(number, faces.length - 1)));
  article.querySelectorAll(".box").forEach((box, at) => box.setAttribute("aria-pressed", at === number));
  const radio = chooser.querySelectorAll("input")[number];
  if (radio) radio.checked = true;
};

const draw = () => {
  const shown = props.value;
  article.innerHTML = shown?.article || "";
  tools.hidden = !shown;
  chooser.hidden = !shown || shown.faces.length < 2;
  chooser.querySelectorAll("label").forEach((label) => label.remove());
  if (!shown) return;
  shown.faces.forEach((said, at) => {
    const label = document.createElement("label");
    const radio = document.createElement("input");
    radio.type = "radio";
    radio.name = "page-face";
    radio.addEventListener("change", () => choose(at));
    label.append(radio, ` ${shown.kind} ${at + 1}: ${said}`);
    chooser.append(label);
  });
  const photo = article.querySelector(".whole img");
  if (photo && shown.faces.length > 1) {
    const frame = document.createElement("div");
    frame.className = "frame";
    photo.replaceWith(frame);
    frame.append(photo);
    shown.boxes.forEach(([left, top, width, height], at) => {
      const box = document.createElement("button");
      box.type = "button";
      box.className = "box";
      box.setAttribute("aria-label", `Face ${at + 1}: ${shown.faces[at]}`);
      Object.assign(box.style, { left: `${left}%`, top: `${top}%`, width: `${width}%`, height: `${height}%` });
      box.addEventListener("click", () => choose(at));
      frame.append(box);
    });
  }
  choose(0);
  article.focus({ preventScroll: true });
  element.scrollIntoView({ block: "start" });
};

tools.addEventListener("click", (event) => {
  const what = event.target.closest("button")?.dataset.save;
  if (!what) return;
  const type = what === "report" ? "text/html" : "application/json";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([props.value[what]], { type }));
  link.download = `ffaa-${props.value.stem}.${what === "report" ? "html" : "json"}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
watch("value", draw);
draw();
