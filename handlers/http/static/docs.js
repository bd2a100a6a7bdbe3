// This script is a file of its own, since the page's policy allows none inside it. There is no validator, since it would
// call a stranger's server. All lists are folded: some 200 operations unfolded take the browser seconds.
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null,
});
