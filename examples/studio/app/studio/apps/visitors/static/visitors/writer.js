// Says in the console whose workspace this is, and what is loaded and saved.
const page = document.getElementById("writer");
const form = document.querySelector('form[action$="/save"]');
const name = page.dataset.owner;

if ("visitor" in page.dataset) {
  console.info(`[VisitorPool] ✓ Allocated: ${name}`);
  console.info(`[VisitorPool] Project ID: ${page.dataset.project}`);
  console.info("[VisitorPool] Project: default-project");
}
if (form) {
  const sections = [...form.querySelectorAll("textarea")];
  for (const section of sections) {
    console.info(`[${name}] [Writer] Loading section content: manuscript/${section.id.replace("section-", "")}`);
  }
  form.addEventListener("submit", () => {
    console.info(`[${name}] [Writer] Saving ${sections.length} sections for manuscript`);
  });
}
