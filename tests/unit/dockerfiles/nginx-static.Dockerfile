FROM node:20 AS build
WORKDIR /site
COPY package*.json ./
RUN npm ci
COPY . .
RUN npm run build -- --base=/

FROM nginx:1.27-alpine
COPY <<"EOF" /etc/nginx/conf.d/default.conf
server {
    listen 80;
    root /usr/share/nginx/html;
    location / {
        try_files $uri $uri/ /index.html;
    }
}
EOF
COPY --from=build /site/dist /usr/share/nginx/html
HEALTHCHECK CMD ["wget", "-qO-", "http://localhost/"]
