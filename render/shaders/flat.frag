#version 330 core
// Base colour times light, linear, to sRGB. pyrender has no cut-out materials: roughness_factor carries the alpha below
// which a fragment is no surface, metallic_factor is 1 where what is left is blended. Neither has a use without gloss.

struct Material {
    vec4 base_color_factor;
    float metallic_factor;
    float roughness_factor;
#ifdef HAS_BASE_COLOR_TEX
    sampler2D base_color_texture;
#endif
};
uniform Material material;
#ifdef HAS_BASE_COLOR_TEX
in vec2 uv;
#endif
in vec3 light;
out vec4 frag_color;

void main()
{
    vec4 base = material.base_color_factor;
#ifdef HAS_BASE_COLOR_TEX
    vec4 texel = texture(material.base_color_texture, uv);
    vec3 low = texel.rgb / 12.92;
    vec3 high = pow((texel.rgb + 0.055) / 1.055, vec3(2.4));
    base = vec4(mix(low, high, step(vec3(0.04045), texel.rgb)), texel.a * base.a);
#endif
    if (base.a < material.roughness_factor) discard;
    vec3 linear = clamp(base.rgb * light, 0.0, 1.0);
    vec3 coded = mix(12.92 * linear, 1.055 * pow(linear, vec3(1.0 / 2.4)) - 0.055, step(vec3(0.0031308), linear));
    frag_color = vec4(coded, material.metallic_factor > 0.5 ? base.a : 1.0);
}
