// This script is a file of its own, since the page's policy allows none inside it. There is no validator, since it would
// call a stranger's server. All lists are folded: some 200 operations unfolded take the browser seconds.

// `make up` prints the page's address with the API key behind the #, a part that no browser sends to a server. The key is
// kept for this tab alone, so that the other parts of the documentation have it, too.
const given = /^#key=([\w-]+)$/.exec(location.hash);
if (given) {
  sessionStorage.setItem("tallystick.key", given[1]);
  history.replaceState(null, "", location.pathname + location.search);
}
const key = sessionStorage.getItem("tallystick.key");

const signedIn = document.getElementById("signed-in");
signedIn.hidden = false;
signedIn.textContent = key
  ? `"Try it out" calls with the key ${key.slice(0, 16)}…, which "make up" printed; "Authorize" takes another one.`
  : '"Try it out" asks for a key: press "Authorize". In development "make up" prints one, and a link that brings it here.';

window.ui = SwaggerUIBundle({
  url: document.body.dataset.document,
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null,
  onComplete: () => {
    if (key) window.ui.preauthorizeApiKey("bearer", key);
  },
});
